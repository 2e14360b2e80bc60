"""Hosts that break the protocol, or die in the middle of it: the agent lives on."""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest

from mags.host.guest import Channel, Configure, Exec, GuestError
from mags.protocol.guest import Decoder, Frame, FrameType
from mags.protocol.guest.frames import LONG_FILLER, MORE, encode_frame, encode_message, encode_reset
from tests.guest.kit import TIMEOUT, Agent, run, shell


class Raw:
    """A connection that sends any bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = Decoder(0)

    @classmethod
    async def open(cls, agent: Agent) -> Raw:
        return cls(*await asyncio.open_unix_connection(str(agent.path)))

    async def greet(self, *, thorough: bool = False) -> None:
        nonce = random.getrandbits(64)
        self.decoder.expect(nonce)
        self.writer.write(encode_reset(nonce, thorough=thorough))
        assert (await self.frames())[0].type == FrameType.HELLO

    async def frames(self) -> list[Frame]:
        async with asyncio.timeout(TIMEOUT):
            while True:
                data = await self.reader.read(65536)
                assert data, "the agent closed the connection"
                if frames := self.decoder.feed(data):
                    return frames

    def send(self, kind: int, id: int = 0, payload: bytes = b"", flags: int = 0) -> None:
        self.writer.write(encode_frame(kind, id, payload, flags))

    async def aclose(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


EXEC_TRUE = Exec(argv=["true"]).encode()
OFFENCES = {
    "no magic": b"garbage",
    "too long": b"MG" + b"\xff" * 100,
    "bad checksum": encode_frame(FrameType.PING, 1)[:-1] + b"\0",
    "unknown type": encode_frame(0x7F, 1),
    "a ping with content": encode_frame(FrameType.PING, 1, b"x"),
    "half a field": encode_frame(FrameType.EXEC, 1, b"\x01"),
    "unknown field": encode_frame(FrameType.EXEC, 1, b"\x63\0\0\0\0"),
    "field beyond the end": encode_frame(FrameType.EXEC, 1, b"\x01\xff\xff\xff\xff"),
    "process 0": encode_frame(FrameType.EXEC, 0, EXEC_TRUE),
    "builtin with argv": encode_frame(FrameType.EXEC, 1, EXEC_TRUE + b"\x02\0\0\0\0\x03\x01\0\0\0\x02"),
    "unknown builtin": encode_frame(FrameType.EXEC, 1, EXEC_TRUE + b"\x03\x01\0\0\0\x63"),
    "NUL in an argument": encode_frame(FrameType.EXEC, 1, b"\x01\x03\0\0\0a\0b"),
    "no window": encode_frame(FrameType.EXEC, 1, b"\x01\x01\0\0\0a"),
    "unknown part": encode_frame(FrameType.CONFIGURE, 1, b"\x0b\0\0\0\0"),
    "a part twice": encode_frame(FrameType.CONFIGURE, 1, b"\x05\0\0\0\0\x05\0\0\0\0"),
    "stdin of nobody": encode_frame(FrameType.STDIN, 77, b"\0" * 8),
    "ack of nobody": encode_frame(FrameType.ACK, 77, b"\x01" + b"\0" * 8),
    "attach to nobody": encode_frame(FrameType.ATTACH, 77, b"\0" * 24),
    "signal to nobody": encode_frame(FrameType.SIGNAL, 77, b"\x09"),
    "resize of nobody": encode_frame(FrameType.RESIZE, 77, b"\0" * 4),
    "freeze for no time": encode_frame(FrameType.FREEZE, 1, b"\0" * 4),
    "a message interrupted": encode_frame(FrameType.EXEC, 1, b"x", MORE) + encode_frame(FrameType.PING, 1),
    "a message of two": encode_frame(FrameType.EXEC, 1, b"x", MORE) + encode_frame(FrameType.EXEC, 2, b"x"),
    "an empty piece": encode_frame(FrameType.EXEC, 1, b"", MORE),
}


@pytest.mark.parametrize("bytes_", OFFENCES.values(), ids=OFFENCES.keys())
async def test_what_the_protocol_does_not_allow_ends_the_session_not_the_agent(agent: Agent, bytes_: bytes) -> None:
    raw = await Raw.open(agent)
    await raw.greet()
    raw.writer.write(bytes_)
    (frame,) = await raw.frames()
    assert frame.type == FrameType.GOODBYE and frame.payload
    # The same connection can begin anew, as that of a virtio port must.
    await raw.greet()
    raw.send(FrameType.PING, 5)
    assert [frame.type for frame in await raw.frames()] == [FrameType.REPLY]
    await raw.aclose()
    channel = await agent.connect()
    assert await shell(channel, "echo fine") == "fine\n"
    await channel.aclose()


async def test_wrong_offsets_end_the_session(agent: Agent) -> None:
    offences = (
        (FrameType.STDIN, (1).to_bytes(8, "little") + b"x"),
        (FrameType.ACK, b"\x01" + (1).to_bytes(8, "little")),
        (FrameType.ACK, b"\x04" + b"\0" * 8),
        (FrameType.ATTACH, b"\0" * 24),
        (FrameType.SIGNAL, b"\x41"),
    )
    for id, (kind, payload) in enumerate(offences, 1):
        raw = await Raw.open(agent)
        await raw.greet()
        raw.send(FrameType.EXEC, id, Exec(argv=["sleep", "1000"], stdin=True, window=100).encode())
        raw.send(kind, id, payload)
        frames = await raw.frames()
        assert frames[-1].type == FrameType.GOODBYE, kind
        await raw.greet()
        raw.send(FrameType.RELEASE, id)
        await raw.aclose()


async def test_stdin_beyond_the_credit_ends_the_session(agent: Agent) -> None:
    raw = await Raw.open(agent)
    await raw.greet()
    raw.send(FrameType.EXEC, 1, Exec(argv=["sleep", "1000"], stdin=True).encode())
    for offset in (0, 65_000, 130_000, 195_000):
        raw.send(FrameType.STDIN, 1, offset.to_bytes(8, "little") + b"x" * 65_000)
    frames = await raw.frames()
    while frames[-1].type == FrameType.CREDIT:  # the pipe took the first
        frames = await raw.frames()
    assert frames[-1].type == FrameType.GOODBYE
    await raw.greet()
    raw.send(FrameType.RELEASE, 1)
    await raw.aclose()


async def test_a_message_may_not_grow_without_end(agent: Agent) -> None:
    raw = await Raw.open(agent)
    await raw.greet()
    for _ in range(33):
        raw.send(FrameType.EXEC, 1, b"x" * 65536, MORE)
    assert [frame.type for frame in await raw.frames()] == [FrameType.GOODBYE]
    await raw.aclose()


@pytest.mark.parametrize("cut", [1, 2, 15, 16, 17, 100, 60_000])
async def test_a_frame_cut_in_half_by_a_dead_host_is_survived(agent: Agent, cut: int) -> None:
    raw = await Raw.open(agent)
    await raw.greet()
    whole = encode_message(FrameType.EXEC, 1, Exec(script=b"#" * 65_000).encode())
    raw.writer.write(whole[:cut])
    # The port does not close when a host dies: the next one's bytes simply follow.
    await raw.greet(thorough=True)
    raw.send(FrameType.PING, 5)
    assert [frame.type for frame in await raw.frames()] == [FrameType.REPLY]
    await raw.aclose()


async def test_a_short_reset_is_found_inside_a_small_cut_frame(agent: Agent) -> None:
    raw = await Raw.open(agent)
    await raw.greet()
    raw.writer.write(encode_frame(FrameType.STDIN, 1, b"x" * 40)[:30])
    await raw.greet()
    await raw.aclose()


async def test_a_new_host_interrupts_a_message_of_many_frames(agent: Agent) -> None:
    raw = await Raw.open(agent)
    await raw.greet()
    raw.send(FrameType.EXEC, 1, b"x" * 1000, MORE)
    await raw.greet()
    raw.send(FrameType.EXEC, 1, Exec(argv=["true"]).encode())
    assert FrameType.EXIT in [frame.type for frame in await raw.frames()]
    await raw.aclose()


async def test_an_id_is_used_once(agent: Agent) -> None:
    raw = await Raw.open(agent)
    await raw.greet()
    raw.send(FrameType.EXEC, 3, Exec(argv=["true"]).encode())
    raw.send(FrameType.EXEC, 3, Exec(argv=["true"]).encode())
    assert (await raw.frames())[-1].type == FrameType.GOODBYE
    await raw.greet()
    raw.send(FrameType.EXEC, 2, Exec(argv=["true"]).encode())
    assert (await raw.frames())[-1].type == FrameType.GOODBYE
    await raw.aclose()


async def test_frames_for_what_was_just_released_are_no_offence(channel: Channel) -> None:
    process = await channel.exec(Exec(argv=["cat"], stdin=True))
    await process.release()
    for kind, payload in (
        (FrameType.STDIN, b"\0" * 8 + b"x"),
        (FrameType.SIGNAL, b"\x01"),
        (FrameType.RESIZE, b"\0" * 4),
        (FrameType.ACK, b"\x01" + b"\0" * 8),
        (FrameType.RELEASE, b""),
    ):
        channel._send(kind, process.id, payload)
    await channel.ping()


async def test_a_host_of_another_version_gets_a_goodbye(agent: Agent) -> None:
    raw = await Raw.open(agent)
    await raw.greet()
    raw.send(FrameType.RESET, 0, (2).to_bytes(2, "little") + b"\0" * 8)
    assert [frame.type for frame in await raw.frames()] == [FrameType.GOODBYE]
    await raw.aclose()


async def test_random_bytes_never_hurt(agent: Agent) -> None:
    dice = random.Random(4)
    sample = encode_frame(FrameType.PING, 1) + encode_frame(FrameType.EXEC, 1, Exec(argv=["true"]).encode())
    raw = await Raw.open(agent)
    for _ in range(300):
        noise = bytearray(dice.choice([sample * 3, dice.randbytes(200), LONG_FILLER[:100] + sample]))
        for _ in range(dice.randrange(4)):
            noise[dice.randrange(len(noise))] = dice.randrange(256)
        raw.writer.write(bytes(noise))
    await raw.greet(thorough=True)
    await raw.aclose()
    channel = await agent.connect()
    assert (await run(channel, Exec(argv=["true"]))).exit.code == 0
    await channel.aclose()


async def test_only_pid_1_touches_the_machine(channel: Channel) -> None:
    before = os.uname().nodename
    for wish in (
        Configure(clock_ns=1),
        Configure(entropy=b"x" * 32),
        Configure(hostname="other"),
        Configure(root=True),
        Configure(machine_id=b"x" * 16),
        Configure(grow=True),
        Configure(unmount_jfs=True),
    ):
        with pytest.raises(GuestError) as caught:
            await channel.configure(wish)
        assert caught.value.errno_name == "EPERM"
    with pytest.raises(GuestError):
        await channel.freeze(limit_s=1)
    assert os.uname().nodename == before


async def test_ping_stats_and_flush_answer(channel: Channel) -> None:
    assert abs(await channel.ping() - time.time()) < 60
    stats = await channel.stats()
    assert 0 < stats.memory_available <= stats.memory_total
    assert 0 < stats.disk_free <= stats.disk_total
    assert stats.processes > 0 and stats.uptime_ms > 0
