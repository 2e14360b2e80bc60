"""Flow control, acknowledgement, stdin, and hosts that come and go."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from mags.host.guest import Channel, ChannelClosed, Exec, Offsets
from tests.guest import kit
from tests.guest.kit import TIMEOUT, Agent, collect, run, shell


async def test_an_agent_reads_no_more_than_its_window(channel: Channel) -> None:
    process = await channel.exec(Exec(script=b"yes", window=10_000))
    async with asyncio.timeout(TIMEOUT):
        received = 0
        while received < 10_000:
            output = await process.next_output()
            assert output is not None
            received += len(output.data)
    # Everything the window allows is here; a round trip later still nothing more has come.
    await channel.ping()
    assert process.received == Offsets(10_000, 0, 0)
    process.acknowledge(1, 10_000)
    output = await process.next_output()
    assert output is not None and output.offset == 10_000
    await process.release()


async def test_a_process_that_is_not_read_does_not_hold_up_another(channel: Channel) -> None:
    noisy = [await channel.exec(Exec(argv=["yes"])) for _ in range(8)]
    for _ in range(20):
        assert (await run(channel, Exec(script=b"echo quick"))).stdout == b"quick\n"
    for process in noisy:
        await process.release()


async def test_both_streams_flow_independently(channel: Channel) -> None:
    script = b"head -c 500000 /dev/zero >&2 & head -c 500000 /dev/zero; wait"
    outcome = await run(channel, Exec(script=script, window=4096))
    assert (len(outcome.stdout), len(outcome.stderr)) == (500_000, 500_000)


async def test_a_tiny_window_still_delivers_everything(channel: Channel) -> None:
    outcome = await run(channel, Exec(script=b"seq 1 500", window=1))
    assert outcome.stdout == "".join(f"{n}\n" for n in range(1, 501)).encode()


async def test_all_that_is_held_for_slow_hosts_is_bounded(channel: Channel) -> None:
    processes = [await channel.exec(Exec(argv=["cat", "/dev/zero"], window=4 << 20)) for _ in range(16)]
    received, before = 1, 0
    async with asyncio.timeout(TIMEOUT):
        while received <= 16 << 20 or received != before:
            await channel.ping()
            await asyncio.sleep(0.2)
            before, received = received, sum(process.received.stdout for process in processes)
    assert received < 30 << 20
    for process in processes:
        await process.release()


async def test_stdin_arrives_whole_and_ends(channel: Channel) -> None:
    data = bytes(range(256)) * 4000
    process = await channel.exec(Exec(script=b"sha1sum; echo end", stdin=True))

    async def feed() -> None:
        await process.write_stdin(data)
        await process.close_stdin()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        outcome = await collect(process)
    assert outcome.stdout == f"{hashlib.sha1(data).hexdigest()}  -\nend\n".encode()


async def test_stdin_waits_for_a_process_that_does_not_read(channel: Channel) -> None:
    process = await channel.exec(Exec(script=b"sleep 1000", stdin=True))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await process.write_stdin(b"x" * 1_000_000)
    await process.release()


async def test_what_nobody_reads_of_stdin_is_dropped(channel: Channel) -> None:
    process = await channel.exec(Exec(script=b"exec 0<&-; sleep 0.3; echo done", stdin=True))
    async with asyncio.timeout(TIMEOUT):
        await process.write_stdin(b"x" * 1_000_000)
    outcome = await collect(process)
    assert (outcome.stdout, outcome.exit.code) == (b"done\n", 0)
    await process.write_stdin(b"too late")


async def test_stdin_cannot_be_written_after_its_end(channel: Channel) -> None:
    process = await channel.exec(Exec(argv=["cat"], stdin=True))
    await process.close_stdin()
    with pytest.raises(ValueError, match="closed"):
        await process.write_stdin(b"x")
    await collect(process)


async def test_the_next_host_goes_on_where_the_last_one_stopped(agent: Agent) -> None:
    first = await agent.connect()
    go = "while [ ! -e {0} ]; do sleep 0.01; done"
    flag = agent.path.parent / "go"
    script = f"seq 1 20000; {go.format(flag)}; seq 20001 40000; exit 7"
    process = await first.exec(Exec(script=script.encode(), window=16_384))
    output = await process.next_output()
    assert output is not None
    stored = output.data
    process.acknowledge(1, len(stored))
    await first.aclose()
    flag.touch()

    second = await agent.connect()
    (info,) = second.hello.processes
    assert info.id == process.id and info.running and info.acknowledged.stdout <= len(stored)
    resumed = second.attach(info.id, Offsets(stdout=len(stored)))
    outcome = await collect(resumed)
    assert stored + outcome.stdout == "".join(f"{n}\n" for n in range(1, 40001)).encode()
    assert outcome.exit.code == 7
    await second.aclose()

    third = await agent.connect()
    assert third.hello.processes == ()
    await third.aclose()


async def test_many_hosts_in_turn_lose_and_repeat_nothing(agent: Agent) -> None:
    channel = await agent.connect()
    wishes = [
        Exec(script=f"seq {n}000 {n}999; sleep 0.05; seq {n}000 {n}999".encode(), window=2048) for n in range(1, 6)
    ]
    processes = {(await channel.exec(wish)).id: b"" for wish in wishes}
    exits: dict[int, int | None] = {}
    for turn in range(200):
        if turn:
            channel = await Channel.connect(
                agent.path, resume={id: Offsets(stdout=len(data)) for id, data in processes.items() if id not in exits}
            )
        for id, process in list(channel.processes.items()):
            for _ in range(3):
                output = await asyncio.wait_for(process.next_output(), TIMEOUT)
                if output is None:
                    exits[id] = (await process.wait()).code
                    await process.release()
                    break
                assert output.offset == len(processes[id])
                processes[id] += output.data
                process.acknowledge(1, len(processes[id]))
        await channel.aclose()
        if len(exits) == len(processes):
            break
    expected = ["".join(f"{n}{k:03}\n" for k in range(1000)).encode() * 2 for n in range(1, 6)]
    assert list(processes.values()) == expected
    assert set(exits.values()) == {0}


async def test_an_exit_waits_for_a_host_that_stores_it(agent: Agent) -> None:
    first = await agent.connect()
    process = await first.exec(Exec(script=b"echo kept; exit 4"))
    await process.wait()
    await first.aclose()
    second = await agent.connect()
    (info,) = second.hello.processes
    assert (info.running, info.written.stdout) == (False, 5)
    outcome = await collect(second.attach(info.id, Offsets()))
    assert (outcome.stdout, outcome.exit.code) == (b"kept\n", 4)
    await second.aclose()


async def test_stdin_goes_on_with_the_next_host(agent: Agent) -> None:
    first = await agent.connect()
    process = await first.exec(Exec(argv=["cat"], stdin=True))
    await process.write_stdin(b"one ")
    await first.ping()
    await first.aclose()
    second = await agent.connect()
    (info,) = second.hello.processes
    assert info.stdin_received == 4
    resumed = second.attach(info.id, Offsets())
    await resumed.write_stdin(b"two")
    await resumed.close_stdin()
    assert (await collect(resumed)).stdout == b"one two"
    await second.aclose()


async def test_attaching_to_what_is_not_there_is_refused(agent: Agent) -> None:
    first = await agent.connect()
    process = await first.exec(Exec(script=b"echo x", window=8))
    await process.wait()
    await first.aclose()
    second = await agent.connect()
    with pytest.raises(KeyError):
        second.attach(process.id + 1, Offsets())
    with pytest.raises(ValueError, match="0 to 2, not 3"):
        second.attach(process.id, Offsets(stdout=3))
    await second.aclose()


async def test_a_host_waits_for_an_agent_that_is_not_there_yet(program: Path, tmp_path: Path) -> None:
    connecting = asyncio.create_task(Channel.connect(tmp_path / "agent.sock", timeout=TIMEOUT))
    await asyncio.sleep(0.05)
    async with kit.serving(program, tmp_path):
        channel = await connecting
        assert await shell(channel, "echo there") == "there\n"
        await channel.aclose()


async def test_everybody_waiting_hears_of_the_end(program: Path, tmp_path: Path) -> None:
    async with kit.serving(program, tmp_path) as agent:
        channel = await agent.connect()
        process = await channel.exec(Exec(script=b"sleep 1000"))
        waiting = asyncio.create_task(process.wait())
        await channel.ping()
    with pytest.raises(ChannelClosed, match="ended"):
        await asyncio.wait_for(waiting, TIMEOUT)
    with pytest.raises(ChannelClosed):
        await channel.ping()
    assert "ended" in await channel.closed
