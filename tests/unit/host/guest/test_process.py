"""A process on the host's side, without a guest."""

from __future__ import annotations

from typing import Any

import pytest

from mags.host.guest import ChannelClosed, Exit, Offsets, Output
from mags.host.guest.process import MAX_PIECES, MERGED, Process
from mags.protocol.guest import FrameType, ProtocolError


class Recorder:
    """Takes the place of the channel and writes down what would be sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def _send(self, kind: int, id: int, payload: bytes = b"", flags: int = 0) -> None:
        self.sent.append((kind, payload))

    async def _drain(self) -> None:
        pass


def started(window: int = 800, offsets: Offsets | None = None) -> tuple[Process, Recorder]:
    recorder = Recorder()
    channel: Any = recorder
    return Process(channel, 1, window, offsets), recorder


def ended(stdout: int) -> Exit:
    return Exit(0, None, False, 1, written=Offsets(stdout))


async def test_small_pieces_are_merged_and_streams_are_not() -> None:
    process, _ = started()
    for n in range(3):
        process._take_output(Output(1, n, b"x"))
    process._take_output(Output(2, 0, b"e"))
    process._take_output(Output(1, 3, b"y"))
    process._take_exit(Exit(0, None, False, 1, written=Offsets(4, 1)))
    pieces = [await process.next_output() for _ in range(4)]
    assert pieces == [Output(1, 0, b"xxx"), Output(2, 0, b"e"), Output(1, 3, b"y"), None]


async def test_merged_pieces_stay_moderate() -> None:
    process, _ = started(window=1 << 20)
    for n in range(5):
        process._take_output(Output(1, n * 30_000, b"x" * 30_000))
    first = await process.next_output()
    assert first is not None and 30_000 < len(first.data) <= MERGED


async def test_streams_in_turns_do_not_make_pieces_without_number() -> None:
    """Each piece takes some 200 bytes of the host's memory, however small it is."""
    process, _ = started(window=1 << 20)
    for n in range(50_000):
        for stream in (1, 2, 3):
            process._take_output(Output(stream, n, bytes((n % 251,))))
    assert len(process._queue) <= MAX_PIECES + 3
    process._take_exit(Exit(0, None, False, 1, written=Offsets(50_000, 50_000, 50_000)))
    got = {1: b"", 2: b"", 3: b""}
    while (piece := await process.next_output()) is not None:
        assert piece.offset == len(got[piece.stream]) and len(piece.data) <= MERGED
        got[piece.stream] += piece.data
    assert all(data == bytes(n % 251 for n in range(50_000)) for data in got.values())


async def test_a_stream_whose_pieces_were_all_taken_begins_another() -> None:
    process, _ = started(window=1 << 20)
    process._take_output(Output(3, 0, b"taken"))
    for n in range(MAX_PIECES // 2 + 1):
        process._take_output(Output(1, n, b"o"))
        process._take_output(Output(2, n, b"e"))
    assert await process.next_output() == Output(3, 0, b"taken")
    process._take_output(Output(3, 5, b"new"))
    assert process._queue[-1] == (3, 5, bytearray(b"new"))


async def test_acknowledgements_are_told_in_steps_of_an_eighth_of_the_window() -> None:
    process, recorder = started(window=800)
    process._take_output(Output(1, 0, b"x" * 800))
    for offset in range(0, 801, 50):
        process.acknowledge(1, offset)
    offsets = [int.from_bytes(payload[1:], "little") for kind, payload in recorder.sent if kind == FrameType.ACK]
    assert offsets == [100, 200, 300, 400, 500, 600, 700, 800]


async def test_only_what_was_received_can_be_acknowledged() -> None:
    process, _ = started(offsets=Offsets(stdout=10))
    process._take_output(Output(1, 10, b"abc"))
    process.acknowledge(1, 13)
    for offset in (12, 14):
        with pytest.raises(ValueError, match="received up to 13"):
            process.acknowledge(1, offset)


async def test_what_had_arrived_is_delivered_before_the_bad_news() -> None:
    process, _ = started()
    process._take_output(Output(1, 0, b"last words"))
    process._lose("QEMU died")
    assert await process.next_output() == Output(1, 0, b"last words")
    with pytest.raises(ChannelClosed, match="QEMU died"):
        await process.next_output()
    with pytest.raises(ChannelClosed):
        await process.wait()
    with pytest.raises(ChannelClosed):
        await process.write_stdin(b"x")


async def test_an_exit_must_fit_its_output() -> None:
    process, _ = started()
    process._take_output(Output(1, 0, b"abc"))
    with pytest.raises(ProtocolError):
        process._take_exit(ended(2))
    process._take_exit(ended(3))
    assert process.exit == ended(3)
    with pytest.raises(ProtocolError):
        process._take_output(Output(1, 3, b"d"))


async def test_stdin_keeps_to_its_credit() -> None:
    process, recorder = started()
    process._start_stdin(0, 5)
    process._take_credit(8)
    await process.write_stdin(b"12345678")
    assert recorder.sent == [(FrameType.STDIN, bytes(8) + b"12345678")]
    with pytest.raises(ProtocolError):
        process._take_credit(7)


async def test_signals_have_numbers() -> None:
    process, recorder = started()
    await process.signal(15)
    for number in (0, 65):
        with pytest.raises(ValueError, match="no such signal"):
            await process.signal(number)
    assert recorder.sent == [(FrameType.SIGNAL, b"\x0f")]
