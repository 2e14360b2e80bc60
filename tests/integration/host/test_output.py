"""A script's output against a real JetStream: stored once and in order, whatever fails in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from mags.host.machines.journal import Away, Journal
from mags.host.machines.output import OutputWriter
from mags.kit import nats
from mags.protocol import subjects
from mags.protocol.messages import Output, OutputEnd, OutputMessage, decode_output
from tests.kit.nats_server import nats_server


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with nats_server(tmp_path, jetstream=True) as url:
        client = await nats.connect(url, name="test")
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture
async def journal(client: Client) -> Journal:
    journal = Journal(client)
    await journal.prepare()
    return journal


async def stored(client: Client, job_id: str) -> list[OutputMessage]:
    jetstream = client.jetstream()
    subscription = await jetstream.subscribe(subjects.output(job_id), ordered_consumer=True)
    found = []
    info = await jetstream.streams_info()
    count = sum(stream.state.messages for stream in info if stream.config.name == subjects.OUTPUT_STREAM)
    for _ in range(count):
        found.append(decode_output((await subscription.next_msg(timeout=30)).data))
    await subscription.unsubscribe()
    return found


def pieces(messages: list[OutputMessage]) -> list[tuple[int, int, bytes]]:
    return [(m.stream, m.offset, m.data) for m in messages if isinstance(m, Output)]


async def test_output_is_stored_with_its_offsets_and_its_end(client: Client, journal: Journal) -> None:
    writer = OutputWriter(journal, "j1")
    await writer.write(1, 0, b"hello ")
    await writer.write(2, 0, b"oops")
    await writer.write(1, 6, b"world")
    await writer.say("The VM is fine.")
    await writer.end(3, None)
    await writer.end(3, None)
    messages = await stored(client, "j1")
    assert pieces(messages) == [(1, 0, b"hello "), (2, 0, b"oops"), (1, 6, b"world"), (3, 0, b"The VM is fine.\n")]
    assert isinstance(messages[-1], OutputEnd) and messages[-1].exit_code == 3
    assert len(messages) == 5


async def test_a_restarted_host_goes_on_at_the_last_byte_stored(client: Client, journal: Journal) -> None:
    first = OutputWriter(journal, "j2")
    await first.write(1, 0, b"12345")
    await first.write(2, 0, b"67")
    second = OutputWriter(journal, "j2")
    await second.recover()
    assert second.position == (5, 2) and not second.ended
    # The guest sends again from an earlier offset, cut in other places than before.
    await second.write(1, 3, b"45678")
    await second.write(2, 0, b"6")
    await second.end(0, None)
    assert pieces(await stored(client, "j2")) == [(1, 0, b"12345"), (2, 0, b"67"), (1, 5, b"678")]
    third = OutputWriter(journal, "j2")
    await third.recover()
    assert third.ended


class Deaf(Journal):
    """Loses the acknowledgement of what it stores, as a connection that breaks does."""

    def __init__(self, client: Client, times: int) -> None:
        super().__init__(client)
        self.times = times

    async def append(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        sequence = await super().append(subject, payload, headers)
        if self.times:
            self.times -= 1
            raise Away("lost on the way")
        return sequence


async def test_a_lost_acknowledgement_does_not_double_a_message(client: Client, journal: Journal) -> None:
    writer = OutputWriter(Deaf(client, times=2), "j3")
    await writer.write(1, 0, b"a")
    await writer.write(1, 1, b"b")
    await writer.write(1, 2, b"c")
    await writer.end(0, None)
    messages = await stored(client, "j3")
    assert pieces(messages) == [(1, 0, b"a"), (1, 1, b"b"), (1, 2, b"c")]
    assert len(messages) == 4


async def test_the_end_is_stored_once_though_its_acknowledgement_is_lost(client: Client, journal: Journal) -> None:
    writer = OutputWriter(Deaf(client, times=1), "j4")
    await writer.end(None, "The job was stopped.")
    messages = await stored(client, "j4")
    assert len(messages) == 1 and isinstance(messages[0], OutputEnd)
    assert messages[0].error == "The job was stopped."


async def test_of_two_hosts_that_write_the_same_bytes_one_is_believed(client: Client, journal: Journal) -> None:
    """A host that was thought dead comes back: what both have is stored once."""
    one, other = OutputWriter(journal, "j5"), OutputWriter(journal, "j5")
    await one.write(1, 0, b"abc")
    await other.write(1, 0, b"abcdef")
    await one.write(1, 3, b"def")
    await one.write(1, 6, b"ghi")
    found = pieces(await stored(client, "j5"))
    assert found == [(1, 0, b"abc"), (1, 3, b"def"), (1, 6, b"ghi")]


async def test_writing_waits_while_the_server_is_away(tmp_path: Path) -> None:
    home = tmp_path / "nats"
    home.mkdir()
    async with nats_server(home, jetstream=True) as url:
        port = url.rpartition(":")[2]
        client = await nats.connect(url, name="test")
        journal = Journal(client)
        await journal.prepare()
        writer = OutputWriter(journal, "j6")
        await writer.write(1, 0, b"before ")
    for file in home.glob("*.ports"):
        file.unlink()
    writing = asyncio.create_task(writer.write(1, 7, b"after"))
    async with nats_server(home, jetstream=True, port=int(port)):
        async with asyncio.timeout(60):
            await writing
        assert pieces(await stored(client, "j6")) == [(1, 0, b"before "), (1, 7, b"after")]
        await client.close()
