"""File operations against a guest that answers without an end: the host keeps no more than it has use for."""

from __future__ import annotations

from typing import Any

import pytest

from mags.host.guest import ChannelClosed
from mags.host.guest.files import DATA_WINDOW, Operation, open_reader
from mags.protocol.guest import RESULT, STDOUT, Output
from mags.protocol.guest.answers import decode_results

RECORD = bytes(8)
"""A result: good, without message and data."""
ENOUGH = 10_000
"""Pieces, if nobody stops the guest before."""


class Endless:
    """A process that goes on and on, and the channel that it is on."""

    exit = None

    def __init__(self, stream: int, piece: bytes) -> None:
        self.stream, self.data, self.told, self.ended = stream, piece, 0, False

    async def exec(self, _: object) -> Endless:
        return self

    async def next_output(self) -> Output | None:
        if self.told == ENOUGH:
            return None
        self.told += 1
        return Output(self.stream, (self.told - 1) * len(self.data), self.data)

    def acknowledge(self, stream: int, offset: int) -> None: ...

    async def release(self) -> None:
        self.ended = True

    @property
    def closed(self) -> Any:
        return self

    def done(self) -> bool:
        return False

    def _decoded(self, decode: Any, data: bytes) -> Any:
        return decode(data)

    def _broken(self, how: str) -> ChannelClosed:
        return ChannelClosed(how)


async def test_results_without_an_end_break_the_channel() -> None:
    guest: Any = Endless(RESULT, RECORD * 2)
    assert decode_results(guest.data)[1] == len(guest.data)
    operation = Operation(guest, guest)
    with pytest.raises(ChannelClosed, match="results"):
        await operation.finish()
    assert guest.told < 10


async def test_data_of_a_file_that_was_not_opened_break_the_channel() -> None:
    guest: Any = Endless(STDOUT, bytes(64 * 1024))
    with pytest.raises(ChannelClosed, match="before"):
        await open_reader(guest, "/etc/motd", 0, None)
    assert guest.told * len(guest.data) <= 2 * DATA_WINDOW and guest.ended
