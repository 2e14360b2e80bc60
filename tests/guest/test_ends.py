"""How processes end: time-outs, signals, descendants, orphans."""

from __future__ import annotations

import asyncio
import os
import signal

from mags.host.guest import Channel, Exec
from tests.guest.kit import Agent, collect, read_until, run, shell


async def test_a_timeout_kills_the_whole_session(channel: Channel) -> None:
    script = b"set -m; trap '' TERM; sleep 1000 & sleep 1001 & echo $!; sleep 1002"
    outcome = await run(channel, Exec(script=script, timeout_ms=300))
    assert outcome.exit.timed_out and outcome.exit.exit_code == 124
    pid = int(outcome.stdout)
    assert (
        await shell(channel, f"kill -0 {pid} 2>/dev/null && grep -q 'State:.Z' /proc/{pid}/status || true; echo x")
        == "x\n"
    )
    assert await shell(channel, f"test -d /proc/{pid} && cat /proc/{pid}/cmdline; true") == ""


async def test_a_process_that_ends_in_time_is_not_timed_out(channel: Channel) -> None:
    outcome = await run(channel, Exec(argv=["true"], timeout_ms=60000))
    assert not outcome.exit.timed_out and outcome.exit.code == 0


async def test_a_background_child_outlives_the_script_and_its_output_is_dropped(channel: Channel) -> None:
    script = b"(while sleep 0.01; do echo tick; done) & echo $!"
    outcome = await run(channel, Exec(script=script))
    pid = int(outcome.stdout.split()[0])
    assert outcome.exit.code == 0
    # It writes more than a pipe holds: it would stand still if nobody read.
    assert await shell(channel, f"sleep 0.3; kill -0 {pid} && kill -9 {pid} && echo alive") == "alive\n"


async def test_output_of_a_child_right_after_the_end_is_still_delivered(channel: Channel) -> None:
    # It has 100 ms; a busy machine may take longer, but not every time.
    seen = set()
    for _ in range(50):
        seen.add((await run(channel, Exec(script=b"(sleep 0.02; echo late) & echo early"))).stdout)
        if b"early\nlate\n" in seen:
            break
    assert b"early\nlate\n" in seen and seen <= {b"early\nlate\n", b"early\n"}


async def test_a_descendant_that_never_stops_writing_does_not_keep_the_exit(channel: Channel) -> None:
    outcome = await run(channel, Exec(script=b"yes & echo $! >&2; sleep 0.05"))
    pid = int(outcome.stderr)
    assert outcome.exit.code == 0
    os.kill(pid, signal.SIGKILL)


async def test_closing_its_output_does_not_end_a_process(channel: Channel) -> None:
    outcome = await run(channel, Exec(script=b"exec 1>&- 2>&-; sleep 0.1; exit 5"))
    assert outcome.exit.code == 5


async def test_signals_reach_the_whole_group(channel: Channel) -> None:
    child = "(trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.01; done)"
    script = f"trap 'wait; echo parent; exit 9' USR1; {child} & wait".encode()
    process = await channel.exec(Exec(script=script))
    await read_until(process, b"ready\n")
    await process.signal(signal.SIGUSR1)
    outcome = await collect(process)
    assert outcome.exit.code == 9
    assert sorted(outcome.stdout.split()) == [b"child", b"parent"]


async def test_releasing_a_running_process_kills_it(channel: Channel) -> None:
    process = await channel.exec(Exec(script=b"echo $$; sleep 1000"))
    pid = int(await read_until(process, b"\n"))
    await process.release()
    async with asyncio.timeout(60):
        while await shell(channel, f"test -d /proc/{pid} && echo there || echo gone") == "there\n":
            await asyncio.sleep(0.02)


async def test_ids_of_released_processes_are_not_used_again(channel: Channel, agent: Agent) -> None:
    first = await channel.exec(Exec(argv=["true"]))
    await collect(first)
    await channel.aclose()
    again = await agent.connect()
    assert again.hello.last_process_id == first.id
    second = await again.exec(Exec(argv=["true"]))
    assert second.id == first.id + 1
    await collect(second)
    await again.aclose()


async def test_output_of_every_size_arrives_whole(channel: Channel) -> None:
    for size in (1, 4095, 65536, 65537, 1_000_003):
        outcome = await run(channel, Exec(script=f"head -c {size} /dev/zero | tr '\\0' x".encode()))
        assert outcome.stdout == b"x" * size


async def test_no_newline_and_invalid_text_are_just_bytes(channel: Channel) -> None:
    outcome = await run(channel, Exec(argv=["printf", r"\377\376\0\200abc"]))
    assert outcome.stdout == b"\xff\xfe\x00\x80abc"
