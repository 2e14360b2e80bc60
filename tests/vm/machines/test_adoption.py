"""The host program dies and comes back: no VM, no script and no line of output is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mags.protocol import messages as m
from mags.protocol import subjects
from tests.kit.host_world import Caller, HostProgram
from tests.kit.nats_server import NatsProgram

pytestmark = pytest.mark.vm

JOBS = 10
LINES = 1000
WRITER = f"""
while [ ! -e /root/go ]; do sleep 0.1; done
i=0
while [ $i -lt {LINES} ]; do
    echo line $i
    [ $((i % 250)) = 0 ] && echo err $i >&2 && sleep 0.5
    i=$((i + 1))
done
exit 7
"""
EXPECTED = "".join(f"line {n}\n" for n in range(LINES)).encode()
ERRORS = "".join(f"err {n}\n" for n in range(0, LINES, 250)).encode()


async def go(caller: Caller, vm_id: str) -> None:
    await caller.exec(vm_id, "touch /root/go")


async def some_output(caller: Caller, jobs: list[str]) -> None:
    """Every job has written something that is stored."""
    for job_id in jobs:
        subscription = await caller.client.jetstream().subscribe(subjects.output(job_id), ordered_consumer=True)
        await subscription.next_msg(timeout=120)
        await subscription.unsubscribe()


async def test_ten_jobs_survive_the_hosts_death(caller: Caller, host: HostProgram) -> None:
    """Killed twice in full flow: each line comes exactly once, in order, and the exit code is the script's."""
    started = await asyncio.gather(*(caller.start(WRITER) for _ in range(JOBS)))
    jobs = [job_id for _, job_id in started]
    await asyncio.gather(*(go(caller, vm_id) for vm_id, _ in started))
    for _ in range(2):
        host.kill()
        host.start()
        await caller.ready()
    for ended in await asyncio.gather(*(caller.ended(job_id) for job_id in jobs)):
        assert ended.stdout == EXPECTED
        assert ended.stderr == ERRORS
        assert ended.exit_code == 7 and ended.error is None
    for job_id in jobs:
        assert (await caller.told(m.JobEnded, job_id=job_id)).exit_code == 7
    for vm_id, _ in started:
        await host.forgets(vm_id)
    assert host.vms() == []


async def test_a_host_that_starts_while_nats_is_away_goes_on_when_it_is_back(
    caller: Caller, host: HostProgram, nats_program: NatsProgram
) -> None:
    vm_id, job_id = await caller.start(WRITER)
    await go(caller, vm_id)
    await some_output(caller, [job_id])
    nats_program.kill()
    host.kill()
    host.start()
    await asyncio.sleep(0.5)
    nats_program.start()
    await caller.ready()
    ended = await caller.ended(job_id)
    assert ended.stdout == EXPECTED and ended.stderr == ERRORS and ended.exit_code == 7
    await host.forgets(vm_id)


async def test_nats_dies_under_a_job(caller: Caller, host: HostProgram, nats_program: NatsProgram) -> None:
    vm_id, job_id = await caller.start(WRITER)
    await go(caller, vm_id)
    await some_output(caller, [job_id])
    nats_program.kill()
    await asyncio.sleep(1.0)
    nats_program.start()
    ended = await caller.ended(job_id)
    assert ended.stdout == EXPECTED and ended.stderr == ERRORS and ended.exit_code == 7
    await host.forgets(vm_id)


async def test_what_waits_is_adopted_and_what_has_died_is_told(caller: Caller, host: HostProgram) -> None:
    parked, first = await caller.start("echo kept > /root/f; sleep 4321 & ", keep="park")
    assert (await caller.ended(first)).exit_code == 0
    await caller.told(m.VmChanged, vm_id=parked, state="parked")
    doomed, job_id = await caller.start("echo kept too > /root/f; sync; echo up; sleep 1000", keep="stay")
    timed, late = await caller.start("echo up; sleep 1000", timeout_s=3)
    await some_output(caller, [job_id, late])
    wish = m.Start(
        vm_id=doomed, spec=m.VmSpec(memory_mb=256), owner="tester", script=m.Script(job_id=job_id, script="echo again")
    )
    victim = host.hypervisor(doomed)
    # A session's process that nobody will hear of again.
    hanging = asyncio.create_task(caller.exec(parked, "sleep 8765", timeout_s=100))
    async with asyncio.timeout(60):
        while b"8765" not in (await caller.exec(parked, "ps")).stdout:
            await asyncio.sleep(0.05)
    host.kill()
    hanging.cancel()
    os.kill(victim, signal.SIGKILL)
    host.start()
    await caller.ready()

    ended = await caller.ended(job_id)
    assert ended.stdout == b"up\n" and ended.exit_code is None
    assert ended.error == "The VM ended while its host program was down."
    await caller.told(m.VmChanged, vm_id=doomed, state="sleeping")
    await caller.ask("start", wish, m.Started)  # answered as before, not carried out again
    assert (await caller.ended(job_id)).stdout == b"up\n"

    result = await caller.exec(parked, "cat /root/f; ps")
    assert result.stdout.startswith(b"kept\n")
    assert b"4321" in result.stdout and b"8765" not in result.stdout
    assert (await caller.run(parked, "cat /root/f")).stdout == b"kept\n"
    assert (await caller.ended(late)).exit_code == 124
    await host.forgets(timed)
    # Its memory is lost, its disk is not.
    assert (await caller.exec(doomed, "cat /root/f; echo up again")).stdout == b"kept too\nup again\n"


async def test_an_orderly_end_leaves_vms_and_ends_the_pool(caller: Caller, host: HostProgram) -> None:
    vm_id, job_id = await caller.start("while [ ! -e /root/go ]; do sleep 0.1; done; echo done")
    assert host.kill(signal.SIGTERM) == 0
    handle = (host.record(vm_id) or {})["handle"]
    assert host.vms() == [handle]
    host.start(pool_target=1, pool_memory_mb=256, pool_max_load=1000)
    await caller.ready()
    await go(caller, vm_id)
    assert (await caller.ended(job_id)).stdout == b"done\n"
    await caller.pool_has(1)
    pooled, second = await caller.start("echo fast")
    assert (await caller.ended(second)).stdout == b"fast\n"
    await host.forgets(pooled)
    await caller.pool_has(1)
    host.kill()
    # What the pool held, and an orphan that no record speaks of.
    assert host.vms() != []
    host.start()
    await caller.ready()
    async with asyncio.timeout(60):
        while host.vms():
            await asyncio.sleep(0.05)
