"""Guests that lie: the channel ends with a reason, the host does not."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mags.host.guest import Channel, ChannelClosed, Configure, Exec, GuestError
from mags.host.guest.wire import BATCH, Wire
from mags.protocol.guest import Frame, FrameType
from mags.protocol.guest.frames import encode_frame
from tests.guest.kit import TIMEOUT

Script = Callable[["Liar"], Awaitable[None]]


class Liar:
    """An agent of our own making."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def frame(self) -> tuple[int, int, bytes]:
        """The host's next frame: type, id, payload."""
        head = await self.reader.readexactly(16)
        while head[:2] != b"MG":
            head = head[1:] + await self.reader.readexactly(1)
        _, kind, _, id, length, _ = struct.unpack("<2sBBIII", head)
        return kind, id, await self.reader.readexactly(length)

    def send(self, kind: int, id: int = 0, payload: bytes = b"") -> None:
        self.writer.write(encode_frame(kind, id, payload))

    async def hello(self, fields: bytes = b"") -> None:
        kind, _, payload = await self.frame()
        assert kind == FrameType.RESET
        self.send(FrameType.HELLO, 0, payload[2:10] + b"\x01\0" + fields)


@asynccontextmanager
async def guest(directory: Path, script: Script) -> AsyncIterator[Path]:
    """A socket behind which the script plays an agent, anew for each connection."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Liar(reader, writer))
            await writer.drain()
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    path = directory / "guest.sock"
    async with await asyncio.start_unix_server(play, str(path)):
        yield path


async def reason_after(directory: Path, script: Script, use: Callable[[Channel], Awaitable[object]]) -> str:
    """Why the channel ended."""
    async with guest(directory, script) as path:
        channel = await Channel.connect(path, timeout=TIMEOUT)
        with pytest.raises(ChannelClosed) as caught:
            async with asyncio.timeout(TIMEOUT):
                await use(channel)
        await channel.aclose()
    assert await channel.closed == str(caught.value)
    return str(caught.value)


async def run(channel: Channel) -> None:
    process = await channel.exec(Exec(argv=["x"], window=100))
    while await process.next_output() is not None:
        pass
    await channel.ping()


def output(offset: int, data: bytes, stream: int = 1) -> bytes:
    return bytes((stream,)) + offset.to_bytes(8, "little") + data


def exit_(out: int) -> bytes:
    return struct.pack("<BB2xI6Q", 0, 0, 0, 0, 0, 0, out, 0, 0)


LIES: dict[str, tuple[list[tuple[int, int, bytes]], str]] = {
    "a gap": ([(FrameType.OUTPUT, 1, output(1, b"x"))], "instead of 0"),
    "a repetition": ([(FrameType.OUTPUT, 1, output(0, b"x"))] * 2, "instead of 1"),
    "nothing": ([(FrameType.OUTPUT, 1, output(0, b""))], "malformed"),
    "more than the window": ([(FrameType.OUTPUT, 1, output(0, b"x" * 101))], "window"),
    "an unknown stream": ([(FrameType.OUTPUT, 1, output(0, b"x", 4))], "malformed"),
    "a stranger": ([(FrameType.OUTPUT, 7, output(0, b"x"))], "never was"),
    "an early exit": ([(FrameType.EXIT, 1, exit_(5))], "does not fit"),
    "two exits": ([(FrameType.EXIT, 1, exit_(0))] * 2, "does not fit"),
    "output after the exit": (
        [(FrameType.EXIT, 1, exit_(0)), (FrameType.OUTPUT, 1, output(0, b"x"))],
        "after the exit",
    ),
    "credit taken back": ([(FrameType.CREDIT, 1, bytes(8))], "taken back"),
    "short credit": ([(FrameType.CREDIT, 1, bytes(7))], "CREDIT"),
    "an answer to nothing": ([(FrameType.REPLY, 9, b"")], "answer to nothing"),
    "a second hello": ([(FrameType.HELLO, 0, bytes(10))], "second HELLO"),
    "a host's frame": ([(FrameType.PING, 1, b"")], "unknown frame type"),
    "a goodbye": ([(FrameType.GOODBYE, 0, b"enough\xff")], "said goodbye: enough"),
}


@pytest.mark.parametrize(("frames", "reason"), LIES.values(), ids=LIES.keys())
async def test_a_lie_ends_the_channel(tmp_path: Path, frames: list[tuple[int, int, bytes]], reason: str) -> None:
    async def lie(liar: Liar) -> None:
        await liar.hello()
        await liar.frame()
        for frame in frames:
            liar.send(*frame)

    assert reason in await reason_after(tmp_path, lie, run)


@pytest.mark.parametrize("noise", [b"\0" * 1000, b"MG\x83\0\x01\0\0\0\xff\xff\xff\xff" + bytes(4)])
async def test_noise_ends_the_channel(tmp_path: Path, noise: bytes) -> None:
    async def lie(liar: Liar) -> None:
        await liar.hello()
        await liar.frame()
        liar.writer.write(noise)

    assert "broke the protocol" in await reason_after(tmp_path, lie, run)


async def test_endless_garbage_instead_of_a_hello_is_not_kept(tmp_path: Path) -> None:
    async def lie(liar: Liar) -> None:
        for _ in range(200):
            liar.writer.write(b"M" * 65536)
            await liar.writer.drain()

    async with guest(tmp_path, lie) as path:
        with pytest.raises(ChannelClosed, match="no HELLO"):
            await Channel.connect(path, timeout=TIMEOUT)


async def test_silence_is_a_timeout(tmp_path: Path) -> None:
    async def lie(liar: Liar) -> None:
        await liar.reader.read()

    async with guest(tmp_path, lie) as path:
        with pytest.raises(TimeoutError):
            await Channel.connect(path, timeout=0.3)


async def test_a_guest_that_hangs_up_at_once_is_closed(tmp_path: Path) -> None:
    async def lie(liar: Liar) -> None:
        liar.writer.close()

    async with guest(tmp_path, lie) as path:
        with pytest.raises(ChannelClosed, match="ended"):
            await Channel.connect(path, timeout=TIMEOUT)


async def test_a_guest_that_ends_while_we_connect_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lie(liar: Liar) -> None:
        liar.writer.close()

    async with guest(tmp_path, lie) as path:
        loop = asyncio.get_running_loop()
        connect = loop.create_unix_connection

        async def slowly(make: Callable[[], Wire], path: str) -> object:
            made = await connect(make, path)
            while not made[0].is_closing():
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            return made

        monkeypatch.setattr(loop, "create_unix_connection", slowly)
        with pytest.raises(ChannelClosed, match="ended"):
            await Channel.connect(path, timeout=TIMEOUT)


FLOODS = {
    "credit": (FrameType.CREDIT, 1, (1 << 40).to_bytes(8, "little")),
    "answers that nobody waits for": (FrameType.REPLY, 1, b""),
    "output of a process that was released": (FrameType.OUTPUT, 2, output(0, b"x")),
}


@pytest.mark.parametrize("frame", FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_of_tiny_frames_does_not_keep_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: tuple[int, int, bytes]
) -> None:
    """Each turn of the loop takes a few of them, though thousands have arrived."""
    taken = 0
    dispatch = Channel._dispatch

    def count(channel: Channel, frame: Frame) -> None:
        nonlocal taken
        taken += 1
        dispatch(channel, frame)

    async def flood(liar: Liar) -> None:
        await liar.hello()
        ping = await liar.frame()
        assert ping[0] == FrameType.PING
        liar.send(FrameType.REPLY, ping[1], struct.pack("<QQ", 10**9, 0))
        for _ in range(3):  # EXEC, EXEC, RELEASE
            await liar.frame()
        many = encode_frame(*frame) * 4096
        while True:
            liar.writer.write(many)
            await liar.writer.drain()

    monkeypatch.setattr(Channel, "_dispatch", count)
    async with guest(tmp_path, flood) as path:
        channel = await Channel.connect(path, timeout=TIMEOUT)
        await channel.ping()
        await channel.exec(Exec(argv=["x"]))
        await (await channel.exec(Exec(argv=["y"]))).release()
        most = before = taken
        async with asyncio.timeout(TIMEOUT):
            while taken < 50 * BATCH:
                await asyncio.sleep(0)
                most, before = max(most, taken - before), taken
        assert not channel.closed.done() and most <= BATCH
        await channel.aclose()


async def test_the_last_words_of_a_flood_are_heard(tmp_path: Path) -> None:
    many = 20 * BATCH + 7

    async def flood(liar: Liar) -> None:
        await liar.hello()
        await liar.frame()
        for offset in range(many):
            liar.send(FrameType.OUTPUT, 1, output(offset, b"x"))
        liar.send(FrameType.EXIT, 1, exit_(many))
        await liar.writer.drain()
        liar.writer.close()

    async with guest(tmp_path, flood) as path:
        channel = await Channel.connect(path, timeout=TIMEOUT)
        process = await channel.exec(Exec(argv=["x"]))
        async with asyncio.timeout(TIMEOUT):
            assert (await process.wait()).code == 0
            assert process.received.stdout == many
            assert "ended" in await asyncio.shield(channel.closed)


async def test_a_wish_that_is_too_long_leaves_nothing_behind(tmp_path: Path) -> None:
    async def honest(liar: Liar) -> None:
        await liar.hello()
        _, id, _ = await liar.frame()
        liar.send(FrameType.REPLY, id, struct.pack("<QQ", 10**9, 0))
        kind, id, _ = await liar.frame()
        assert (kind, id) == (FrameType.EXEC, 1)
        liar.send(FrameType.EXIT, 1, exit_(0))

    long = Exec(argv=["x" * (1 << 20)] * 3)
    async with guest(tmp_path, honest) as path:
        channel = await Channel.connect(path, timeout=TIMEOUT)
        with pytest.raises(ValueError, match="longer than"):
            await channel.exec(long)
        with pytest.raises(ValueError, match="longer than"):
            await channel.configure_and_exec(Configure(clock_ns=1), long)
        assert not channel.processes and not channel._requests._waiting
        assert await channel.ping() == 1.0
        process = await channel.exec(Exec(argv=["x"]))
        assert (await process.wait()).code == 0
        await channel.aclose()


async def test_an_impossible_hello_is_refused(tmp_path: Path) -> None:
    async def lie(liar: Liar) -> None:
        await liar.hello(b"\x63\0\0\0\0")

    async with guest(tmp_path, lie) as path:
        with pytest.raises(ChannelClosed, match="unknown field"):
            await Channel.connect(path, timeout=TIMEOUT)


async def test_a_late_hello_of_the_first_connection_is_not_taken_for_the_second(tmp_path: Path) -> None:
    nonces: list[bytes] = []

    async def slow(liar: Liar) -> None:
        _, _, reset = await liar.frame()
        nonces.append(reset[2:10])
        if len(nonces) == 2:
            liar.send(FrameType.HELLO, 0, nonces[0] + b"\x01\0\x05\x04\0\0\0\x07\0\0\0")
            liar.send(FrameType.HELLO, 0, nonces[1] + b"\x01\0\x05\x04\0\0\0\x08\0\0\0")

    async with guest(tmp_path, slow) as path:
        channel = await Channel.connect(path, timeout=TIMEOUT)
        assert channel.hello.last_process_id == 8
        await channel.aclose()


async def test_a_guest_that_does_not_confirm_everything_is_not_handed_over(tmp_path: Path) -> None:
    async def lie(liar: Liar) -> None:
        await liar.hello()
        _, id, _ = await liar.frame()
        liar.send(FrameType.CONFIGURED, id, b"\x01\x02\0\0\0\0\0")

    wish = Configure(clock_ns=1, entropy=bytes(32))
    reason = await reason_after(tmp_path, lie, lambda channel: channel.configure(wish))
    assert "did not confirm" in reason


async def test_a_refused_part_is_an_error_of_the_wish_only(tmp_path: Path) -> None:
    async def honest(liar: Liar) -> None:
        await liar.hello()
        _, id, _ = await liar.frame()
        liar.send(FrameType.CONFIGURED, id, b"\x01\x02\0\0\0\0\0" + b"\x02\x05\0\0\0\x01\0why")
        _, id, _ = await liar.frame()
        liar.send(FrameType.REPLY, id, struct.pack("<QQ", 10**9, 0))

    async with guest(tmp_path, honest) as path:
        channel = await Channel.connect(path, timeout=TIMEOUT)
        with pytest.raises(GuestError, match="entropy: why"):
            await channel.configure(Configure(clock_ns=1, entropy=bytes(32)))
        assert await channel.ping() == 1.0
        await channel.aclose()


async def test_the_wrong_kind_of_answer_ends_the_channel(tmp_path: Path) -> None:
    async def lie(liar: Liar) -> None:
        await liar.hello()
        _, id, _ = await liar.frame()
        liar.send(FrameType.CONFIGURED, id)

    assert "wrong type" in await reason_after(tmp_path, lie, Channel.ping)


async def test_a_malformed_answer_ends_the_channel(tmp_path: Path) -> None:
    async def lie(liar: Liar) -> None:
        await liar.hello()
        _, id, _ = await liar.frame()
        liar.send(FrameType.REPLY, id, b"x")

    assert "malformed" in await reason_after(tmp_path, lie, Channel.stats)


async def test_an_answer_that_never_comes_is_a_timeout(tmp_path: Path) -> None:
    async with guest(tmp_path, Liar.hello) as path:
        channel = await Channel.connect(path, timeout=TIMEOUT)
        with pytest.raises(TimeoutError):
            await channel.configure(Configure(clock_ns=1), timeout=0.1)
        await channel.aclose()


async def test_a_guest_that_does_not_read_cannot_fill_our_memory(tmp_path: Path) -> None:
    async with guest(tmp_path, Liar.hello) as path:
        channel = await Channel.connect(path, timeout=TIMEOUT)
        channel._wire.transport.set_write_buffer_limits(high=0)
        with pytest.raises(ChannelClosed, match="does not read"):
            while True:
                await channel.exec(Exec(script=b"x" * 1_000_000))
        await channel.aclose()


@pytest.mark.parametrize("records", [b"\0\0\xff\xff\0\0\0\0", b"\0\0\0\0\x04\0\0\0abcd"])
async def test_a_malformed_result_ends_the_channel(tmp_path: Path, records: bytes) -> None:
    async def lie(liar: Liar) -> None:
        await liar.hello()
        await liar.frame()
        liar.send(FrameType.OUTPUT, 1, output(0, records, 3))
        liar.send(FrameType.EXIT, 1, struct.pack("<BB2xI6Q", 0, 0, 0, 0, 0, 0, 0, 0, len(records)))

    reason = await reason_after(tmp_path, lie, lambda channel: channel.stat("/x"))
    assert "broke the protocol" in reason


async def test_an_operation_without_a_result_is_an_error(tmp_path: Path) -> None:
    async def lie(liar: Liar) -> None:
        await liar.hello()
        for id in (1, 2):
            while (await liar.frame())[0] != FrameType.EXEC:
                pass
            liar.send(FrameType.EXIT, id, exit_(0))

    async with guest(tmp_path, lie) as path:
        channel = await Channel.connect(path, timeout=TIMEOUT)
        with pytest.raises(GuestError, match="without a result"):
            await channel.remove("/x")
        with pytest.raises(GuestError, match="not opened"):
            await channel.read_file("/x")
        await channel.aclose()
