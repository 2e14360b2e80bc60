"""A VM that sleeps and wakes through a real host program."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path
from random import Random

import pytest

from mags.hostclient import Session
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from tests.kit.host_world import HOST_ID, PATIENCE, Caller, HostProgram

pytestmark = pytest.mark.vm

COUNTER = (
    "mkdir -p /m; mount -t tmpfs none /m; i=0; while :; do i=$((i+1)); echo $i >/m/.n; mv /m/.n /m/n; sleep 0.05; done"
)


async def sleep(caller: Caller, vm_id: str) -> None:
    await caller.ask("sleep", m.VmRequest(vm_id=vm_id), m.Done)


async def wake(caller: Caller, vm_id: str) -> None:
    await caller.ask("wake", m.VmRequest(vm_id=vm_id), m.Done)


async def state(caller: Caller, vm_id: str) -> str:
    listed = await caller.ask("list", m.Empty(), m.VmList)
    return next(vm.state for vm in listed.vms if vm.vm_id == vm_id)


async def count(caller: Caller, vm_id: str) -> int:
    return int((await caller.exec(vm_id, "cat /m/n")).stdout)


async def counting(caller: Caller) -> str:
    """A VM with a process in the background that counts in memory."""
    vm_id, _ = await caller.start(f"({COUNTER}) >/dev/null 2>&1 & sleep 0.2; echo begun", keep="stay")
    while (await caller.exec(vm_id, "test -s /m/n")).exit_code:
        await asyncio.sleep(0.05)
    return vm_id


async def test_a_vm_sleeps_without_a_process_and_wakes_on_use(caller: Caller, host: HostProgram) -> None:
    vm_id = await counting(caller)
    before = await count(caller, vm_id)
    pid = host.hypervisor(vm_id)
    began = time.monotonic()
    await sleep(caller, vm_id)
    print("slept in", time.monotonic() - began)
    assert await state(caller, vm_id) == "sleeping"
    await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")
    with pytest.raises(AssertionError):
        host.hypervisor(vm_id)
    await sleep(caller, vm_id)
    began = time.monotonic()
    await wake(caller, vm_id)
    print("woken in", time.monotonic() - began)
    began = time.monotonic()
    assert await count(caller, vm_id) >= before
    print("first exec in", time.monotonic() - began)
    await caller.told(m.VmChanged, vm_id=vm_id, state="running")
    first = await count(caller, vm_id)
    while await count(caller, vm_id) == first:
        await asyncio.sleep(0.1)
    assert host.hypervisor(vm_id) != pid


@pytest.fixture(scope="module")
def alarm(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program for the guest, whose own tools wait for a while only."""
    made = tmp_path_factory.mktemp("alarm") / "alarm"
    source = Path(__file__).with_name("alarm.c")
    words = ["musl-gcc", "-std=gnu11", "-Wall", "-Werror", "-static", "-O1", "-s", "-o", str(made), str(source)]
    subprocess.run(words, check=True, timeout=120)
    return made.read_bytes()


TIMERS = """
date -s @$(($(date +%s) - 7200))
(/alarm 3600; touch /alarmed) >/dev/null 2>&1 &
(cat /proc/uptime > /began; sleep {0}; cat /proc/uptime > /next; mv /next /rang) >/dev/null 2>&1 &
sleep 1; cat /began /proc/uptime
"""


async def test_timers_and_the_clock_after_a_sleep(caller: Caller, alarm: bytes) -> None:
    """Who waits for a while waits for the rest of it, who waits for a time of day that has come is woken. The guest's
    clock is two hours behind when it falls asleep."""
    length = gap = 2.5
    vm_id, _ = await caller.start(None, keep="stay")
    assert (await caller.exec(vm_id, "cat > /alarm; chmod +x /alarm", stdin=alarm)).exit_code == 0
    asked = time.monotonic()
    said = await caller.exec(vm_id, TIMERS.format(length))
    began, before = (float(line.split()[0]) for line in said.stdout.splitlines()[-2:])
    await sleep(caller, vm_id)
    await asyncio.sleep(gap)
    at = time.time()
    said = await caller.exec(vm_id, "date +%s; cat /proc/uptime; test -e /rang && echo rang")
    clock, uptime, *rang = said.stdout.split(b"\n")
    assert at - 2 <= int(clock) <= time.time() + 2
    after = float(uptime.split()[0])
    assert after - before <= time.monotonic() - asked - gap, "time went on while it slept"
    assert rang != [b"rang", b""] or after - began >= length
    wait = "until test -e /rang && test -e /alarmed; do sleep 0.1; done; cat /rang"
    ended = float((await caller.exec(vm_id, wait, timeout_s=PATIENCE)).stdout.split()[0])
    assert length <= ended - began < length + before - began, "it waited for as long as it was to, and no more"


async def test_files_a_session_and_a_run_wake_a_vm_too(caller: Caller) -> None:
    vm_id, _ = await caller.start("echo here > /root/file", keep="stay")
    await sleep(caller, vm_id)
    await caller.ask("files", m.Files(vm_id=vm_id, action="list", path="/root"), m.FilesResult)
    assert await state(caller, vm_id) == "running"
    await sleep(caller, vm_id)
    assert (await caller.run(vm_id, "cat /root/file")).stdout == b"here\n"
    await sleep(caller, vm_id)
    wish = m.Open(vm_id=vm_id, session_id=new_id(), kind="exec", command="cat /root/file")
    async with await Session.open(caller.hosts, HOST_ID, wish, timeout=PATIENCE) as session:
        assert b"".join([frame.data async for frame in session]) == b"here\n"


async def test_output_of_a_script_goes_on_over_sleep(caller: Caller) -> None:
    script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 5"
    vm_id, job_id = await caller.start(script, keep="stay")
    for _ in range(3):
        await asyncio.sleep(0.3)
        await sleep(caller, vm_id)
        await wake(caller, vm_id)
    ended = await caller.ended(job_id)
    assert ended.stdout == "".join(f"line {n}\n" for n in range(40)).encode()
    assert ended.exit_code == 5


async def test_an_idle_vm_falls_asleep_by_itself_and_a_busy_one_does_not(caller: Caller) -> None:
    """A process in the background, whatever it does, or a script that only waits, keeps nothing awake."""
    background, _ = await caller.start("(while :; do :; done) >/dev/null 2>&1 &", keep="stay", idle_timeout_s=2)
    await caller.told(m.VmChanged, vm_id=background, state="sleeping")
    await caller.stop(background)
    idle, _ = await caller.start("sleep 1000", keep="stay", idle_timeout_s=2)
    busy, _ = await caller.start("while :; do :; done", keep="stay", idle_timeout_s=2)
    await caller.told(m.VmChanged, vm_id=idle, state="sleeping")
    assert await state(caller, busy) == "running"
    holding = asyncio.create_task(caller.exec(idle, "sleep 4; echo held"))
    await caller.told(m.VmChanged, vm_id=idle, state="running")
    assert (await holding).stdout == b"held\n"
    await caller.ask("adjust", m.Adjust(vm_id=busy, no_sleep=True), m.Done)
    with pytest.raises(Problem) as caught:
        await sleep(caller, busy)
    assert caught.value.code == "conflict"


async def test_a_vm_in_use_is_not_put_to_sleep(caller: Caller) -> None:
    vm_id, _ = await caller.start(None, keep="stay")
    using = asyncio.create_task(caller.exec(vm_id, "touch /root/begun; sleep 6; echo used"))
    while (await caller.exec(vm_id, "test -e /root/begun")).exit_code:
        await asyncio.sleep(0.05)
    with pytest.raises(Problem) as caught:
        await sleep(caller, vm_id)
    assert caught.value.code == "conflict" and "in use" in caught.value.message
    assert (await using).stdout == b"used\n"
    await sleep(caller, vm_id)


async def test_a_parked_vm_with_its_files_sleeps_when_its_time_is_over(caller: Caller) -> None:
    vm_id, job_id = await caller.start("echo kept > /root/file", keep="park", name="workspace")
    assert (await caller.ended(job_id)).exit_code == 0
    await caller.told(m.VmChanged, vm_id=vm_id, state="parked")
    await sleep(caller, vm_id)
    assert (await caller.run(vm_id, "cat /root/file")).stdout == b"kept\n"
    await caller.told(m.VmChanged, vm_id=vm_id, state="running")


async def test_stopping_a_vm_that_sleeps_ends_its_script_and_leaves_nothing(caller: Caller, host: HostProgram) -> None:
    vm_id, job_id = await caller.start("sleep 1000", keep="stay")
    await sleep(caller, vm_id)
    await caller.stop(vm_id)
    assert (await caller.ended(job_id)).error == "The job was stopped."
    await host.forgets(vm_id)


async def test_cancelling_a_script_of_a_vm_that_sleeps_ends_it(caller: Caller) -> None:
    vm_id, job_id = await caller.start("sleep 1000", keep="stay")
    await sleep(caller, vm_id)
    await caller.ask("cancel", m.Cancel(vm_id=vm_id, job_id=job_id), m.Done)
    assert (await caller.ended(job_id)).error == "The script was cancelled."


async def test_fifty_clients_wake_one_vm_once(caller: Caller) -> None:
    vm_id, _ = await caller.start(None, keep="stay")
    await sleep(caller, vm_id)
    answers = await asyncio.gather(*(caller.exec(vm_id, f"echo {n}") for n in range(50)))
    assert [answer.stdout for answer in answers] == [f"{n}\n".encode() for n in range(50)]
    await caller.told(m.VmChanged, vm_id=vm_id, state="running")
    assert sum(isinstance(event, m.VmChanged) and event.vm_id == vm_id for event in caller.events) == 2


async def hammer(caller: Caller, tries: int) -> None:
    """Requests at random moments of falling asleep: none is lost, and the memory is the same all the time."""
    vm_id = await counting(caller)
    random = Random(4)
    last = 0
    for _ in range(tries):
        falling = asyncio.create_task(sleep(caller, vm_id))
        await asyncio.sleep(random.uniform(0, 0.25))
        now = await count(caller, vm_id)
        assert now >= last
        last = now
        await asyncio.gather(falling, return_exceptions=True)


async def test_requests_while_it_falls_asleep_are_not_lost(caller: Caller) -> None:
    await hammer(caller, 12)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_thousand_requests_while_it_falls_asleep_are_not_lost(caller: Caller) -> None:
    await hammer(caller, 1000)
