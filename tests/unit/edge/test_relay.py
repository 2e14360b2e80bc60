"""The pace of a relay: who sends more than the other side takes must wait, whenever that begins."""

from __future__ import annotations

import asyncio
from typing import cast

from mags.edge.urls.relay import Back, Front, Side


class Slow(asyncio.Transport):
    """Takes nothing out of its buffer until `drain`; says at once that more than `limit` bytes are too many."""

    def __init__(self, protocol: Side, limit: int = 1000) -> None:
        super().__init__()
        self.protocol, self.limit, self.waiting, self.reading, self.full = protocol, limit, 0, True, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.waiting += len(data)
        if self.waiting > self.limit and not self.full:
            self.full = True
            self.protocol.pause_writing()

    def drain(self) -> None:
        self.waiting = 0
        if self.full:
            self.full = False
            self.protocol.resume_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Nobody:
    def opened(self, front: Front) -> None: ...

    def wanting(self, front: Front) -> None: ...

    def rested(self, front: Front) -> None: ...

    def left(self, front: Front) -> None: ...


def connected(front: Front) -> tuple[Back, Slow]:
    back = Back(front)
    transport = Slow(back)
    back.connection_made(transport)
    return back, transport


def a_front() -> tuple[Front, Slow]:
    front = Front(Nobody())
    transport = Slow(front)
    front.connection_made(transport)
    return front, transport


def test_a_vm_that_takes_nothing_stops_the_client_from_the_first_byte_on() -> None:
    """What came before there was a connection to the VM may fill its buffer already."""
    front, client = a_front()
    front.data_received(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + bytes(2000))

    _, vm = connected(front)

    assert vm.full and not client.reading
    vm.drain()
    assert client.reading


def test_a_connection_that_was_let_go_of_does_not_change_the_pace_of_the_next_one() -> None:
    front, client = a_front()
    front.data_received(b"POST / HTTP/1.1\r\nContent-Length: 2000\r\n\r\n" + bytes(2000))
    old, old_vm = connected(front)
    old.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")  # without having read the body
    assert front.rest()
    front.data_received(b"POST / HTTP/1.1\r\nContent-Length: 2000\r\n\r\n" + bytes(2000))
    connected(front)
    assert not client.reading

    old_vm.drain()

    assert not client.reading
    assert cast(Side, old).peer is None
