"""What goes wrong around sleep: killed host programs, damaged images, dead VMs, full disks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from random import Random

import pytest

from mags.host.network import kernel
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from tests.kit.host_world import PATIENCE, Caller, HostProgram
from tests.vm.sleep.test_machine import count, counting, sleep, state, wake

pytestmark = pytest.mark.vm


def directory(host: HostProgram, vm_id: str) -> Path:
    record = host.record(vm_id)
    assert record is not None
    return host.data / "host" / "vms" / str(record["handle"])


async def runs(caller: Caller, vm_id: str, words: bytes) -> None:
    """A process with these words in its command line has been started in the VM."""
    while words not in (await caller.exec(vm_id, "ps")).stdout:
        await asyncio.sleep(0.05)


async def after_death(caller: Caller, vm_id: str, command: str) -> bytes:
    """What a command says in a VM that was killed just now; who comes before its host has noticed fails with it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return (await caller.exec(vm_id, command)).stdout
            except Problem as problem:
                assert problem.code == "guest_failed"
                await asyncio.sleep(0.05)


async def test_a_vm_sleeps_through_a_restart_of_the_host_program(caller: Caller, host: HostProgram) -> None:
    vm_id = await counting(caller)
    before = await count(caller, vm_id)
    await sleep(caller, vm_id)
    host.kill()
    host.start()
    await caller.ready()
    assert await state(caller, vm_id) == "sleeping"
    assert await count(caller, vm_id) >= before


async def killed_somewhere(caller: Caller, host: HostProgram, tries: int, seed: int = 5) -> None:
    """kill -9 of the host program at random moments of falling asleep and waking, and now and then a mere request to
    end; the VM goes on, with its memory."""
    vm_id = await counting(caller)
    random = Random(seed)
    last = 0
    for number in range(tries):
        if number % 2:
            await sleep(caller, vm_id)
            doing = asyncio.create_task(wake(caller, vm_id))
        else:
            doing = asyncio.create_task(sleep(caller, vm_id))
        await asyncio.sleep(random.uniform(0, 0.2))
        if random.random() < 0.25:
            assert await asyncio.to_thread(host.kill, signal.SIGTERM) == 0
        else:
            host.kill()
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        host.start()
        await caller.ready()
        now = await count(caller, vm_id)
        assert now >= last
        last = now


async def test_a_host_program_killed_while_a_vm_is_half_asleep_or_half_awake(caller: Caller, host: HostProgram) -> None:
    await killed_somewhere(caller, host, 6)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_host_program_killed_very_often(caller: Caller, host: HostProgram) -> None:
    await killed_somewhere(caller, host, 300)


async def test_a_damaged_image_starts_afresh_with_the_files_and_the_startup_command(
    caller: Caller, host: HostProgram
) -> None:
    command = "echo startup of $(cat /root/file); test -e /root/second || { touch /root/second; exit 3; }; sleep 1000"
    script = "echo precious > /root/file; sync; echo begun; sleep 1000"
    vm_id, job_id = await caller.start(script, keep="stay", startup_command=command)
    await caller.said(job_id, b"begun")
    await sleep(caller, vm_id)
    (directory(host, vm_id) / "devices").write_bytes(b"damaged")
    assert (await caller.exec(vm_id, "cat /root/file")).stdout == b"precious\n"
    ended = await caller.ended(job_id)
    assert ended.exit_code is None and "lost its memory" in str(ended.error)
    changed = await caller.told(m.VmChanged, vm_id=vm_id, state="running")
    assert "damaged" in changed.reason
    # It failed once, and is started again; sleep does not end it.
    log = await caller.said(job_id, b"startup of precious", times=2)
    assert b"begun\n" in log
    # What it has written is there before it goes on: only then is it what sleeps and wakes.
    await runs(caller, vm_id, b"sleep 1000")
    await sleep(caller, vm_id)
    assert b"sleep 1000" in (await caller.exec(vm_id, "ps")).stdout


async def test_a_vm_that_dies_while_it_falls_asleep_or_wakes_keeps_its_files(caller: Caller, host: HostProgram) -> None:
    """Killed at random moments: it is asleep, or starts afresh; nobody waits for ever, and its script is told of."""
    vm_id, job_id = await caller.start("echo precious > /root/file; sync; echo begun; sleep 1000", keep="stay")
    await caller.said(job_id, b"begun")
    random = Random(6)
    for number in range(6):
        if number % 2:
            await sleep(caller, vm_id)
            doing = asyncio.create_task(wake(caller, vm_id))
        else:
            doing = asyncio.create_task(sleep(caller, vm_id))
        await asyncio.sleep(random.uniform(0, 0.15))
        try:
            os.kill(host.hypervisor(vm_id), signal.SIGKILL)
        except (AssertionError, ProcessLookupError):
            pass  # it has none now
        await asyncio.gather(doing, return_exceptions=True)
        assert await after_death(caller, vm_id, "cat /root/file") == b"precious\n"
    os.kill(host.hypervisor(vm_id), signal.SIGKILL)
    assert (await caller.ended(job_id)).error is not None
    assert await after_death(caller, vm_id, "cat /root/file") == b"precious\n"


async def test_a_vm_that_never_sleeps_is_started_again_when_it_dies(caller: Caller, host: HostProgram) -> None:
    script = "echo precious > /root/file; sync; echo begun; sleep 1000"
    vm_id, job_id = await caller.start(
        script, keep="stay", no_sleep=True, startup_command="echo again; sleep 1000", environment={"A": "b"}
    )
    await caller.said(job_id, b"begun")
    os.kill(host.hypervisor(vm_id), signal.SIGKILL)
    assert (await caller.ended(job_id)).error is not None
    await caller.told(m.VmChanged, vm_id=vm_id, state="running")
    assert (await caller.exec(vm_id, "cat /root/file; echo $A")).stdout == b"precious\nb\n"
    await caller.said(job_id, b"again")
    # And while its host program is away.
    victim = host.hypervisor(vm_id)
    host.kill()
    os.kill(victim, signal.SIGKILL)
    host.start()
    await caller.ready()
    assert (await caller.exec(vm_id, "cat /root/file")).stdout == b"precious\n"


async def test_a_vm_that_dies_keeps_files_that_are_nowhere_else(caller: Caller, host: HostProgram) -> None:
    vm_id, job_id = await caller.start("echo precious > /root/file; sync; echo begun; sleep 1000", keep="stay")
    await caller.said(job_id, b"begun")
    using = asyncio.create_task(caller.exec(vm_id, "sleep 1000", timeout_s=100))
    await runs(caller, vm_id, b"sleep 1000")
    os.kill(host.hypervisor(vm_id), signal.SIGKILL)
    assert "signal 9" in str((await caller.ended(job_id)).error)
    assert "signal 9" in (await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")).reason
    assert (await asyncio.gather(using, return_exceptions=True))[0].__class__ is Problem
    assert (await caller.exec(vm_id, "cat /root/file")).stdout == b"precious\n"
    # So does a reboot from inside.
    await caller.told(m.VmChanged, vm_id=vm_id, state="running")
    await asyncio.gather(caller.exec(vm_id, "echo more >> /root/file; sync; reboot -f"), return_exceptions=True)
    async with asyncio.timeout(60):
        while await state(caller, vm_id) != "sleeping":
            await asyncio.sleep(0.05)
    assert (await caller.exec(vm_id, "cat /root/file")).stdout == b"precious\nmore\n"


async def test_connections_into_a_vm_end_when_it_falls_asleep(caller: Caller) -> None:
    """On both sides; and new ones are answered at once, also while it sleeps."""
    vm_id, _ = await caller.start("nc -lk -p 8080 -e sh -c 'cat; echo closed >> /tmp/closed'", keep="stay")
    dialed = await caller.ask("dial", m.Dial(vm_id=vm_id, port=8080), m.Dialed)
    while True:
        try:
            reader, writer = await asyncio.open_connection(dialed.address, dialed.port)
            break
        except OSError:
            await asyncio.sleep(0.1)
    writer.write(b"hello\n")
    async with asyncio.timeout(60):
        assert await reader.readline() == b"hello\n"
    await sleep(caller, vm_id)
    async with asyncio.timeout(30):
        with pytest.raises(OSError):
            await reader.readexactly(1)
    writer.close()
    for _ in range(20):
        async with asyncio.timeout(2.5):
            with pytest.raises(OSError):
                await asyncio.open_connection(dialed.address, dialed.port)
    await caller.ask("dial", m.Dial(vm_id=vm_id, port=8080), m.Dialed)
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(dialed.address, dialed.port)
        writer.write(b"again\n")
        assert await reader.readline() == b"again\n"
        assert (await caller.exec(vm_id, "until test -s /tmp/closed; do sleep 0.05; done", timeout_s=50)).exit_code == 0
        assert (await caller.exec(vm_id, "cat /tmp/closed")).stdout == b"closed\n"
        writer.close()


async def test_a_vm_that_kills_its_network_wakes_all_the_same(caller: Caller) -> None:
    vm_id, _ = await caller.start(None, keep="stay")
    await caller.exec(vm_id, "ip link set eth0 down; ip addr flush dev eth0")
    await sleep(caller, vm_id)
    assert (await caller.exec(vm_id, "echo here")).stdout == b"here\n"


async def test_a_vm_that_never_sleeps_does_when_its_host_goes_down_and_is_back_with_it(
    caller: Caller, host: HostProgram
) -> None:
    vm_id = await counting(caller)
    await caller.ask("adjust", m.Adjust(vm_id=vm_id, no_sleep=True), m.Done)
    using = asyncio.create_task(caller.exec(vm_id, "sleep 1000", timeout_s=100))
    await runs(caller, vm_id, b"sleep 1000")
    before = await count(caller, vm_id)
    await caller.ask("sleep", m.VmRequest(vm_id=vm_id, force=True), m.Done)
    assert await state(caller, vm_id) == "sleeping"
    assert (await asyncio.gather(using, return_exceptions=True))[0].__class__ is Problem
    assert host.kill(signal.SIGTERM) == 0
    host.start()
    await caller.ready()
    await caller.told(m.VmChanged, vm_id=vm_id, state="running")
    assert await state(caller, vm_id) == "running"
    assert await count(caller, vm_id) >= before


async def test_a_vm_that_can_not_be_saved_stays_awake_and_says_so(caller: Caller, host: HostProgram) -> None:
    """(A full disk itself is in test_snapshot.)"""
    vm_id = await counting(caller)
    before = await count(caller, vm_id)
    for name in ("memory.new", "devices"):
        obstacle = directory(host, vm_id) / name
        obstacle.mkdir()
        with pytest.raises(Problem) as caught:
            await sleep(caller, vm_id)
        assert caught.value.code == "unavailable" and "can't be saved" in caught.value.message
        assert await state(caller, vm_id) == "running"
        assert await count(caller, vm_id) >= before
        obstacle.rmdir()
    await sleep(caller, vm_id)
    assert await count(caller, vm_id) >= before


async def test_a_vm_that_can_not_be_saved_before_its_host_goes_down_keeps_its_files(
    caller: Caller, host: HostProgram
) -> None:
    script = "echo precious > /root/file; echo begun; sleep 1000"
    vm_id, job_id = await caller.start(script, keep="stay", startup_command="echo again; sleep 1000")
    await caller.said(job_id, b"begun")
    obstacle = directory(host, vm_id) / "devices"
    obstacle.mkdir()
    await caller.ask("sleep", m.VmRequest(vm_id=vm_id, force=True), m.Done)
    obstacle.rmdir()
    assert await state(caller, vm_id) == "sleeping"
    assert "can't be saved" in (await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")).reason
    assert host.kill(signal.SIGTERM) == 0
    host.start()
    await caller.ready()
    assert (await caller.exec(vm_id, "cat /root/file")).stdout == b"precious\n"
    await caller.said(job_id, b"again")


async def test_a_vm_sleeps_through_a_restart_of_the_machine(caller: Caller, host: HostProgram) -> None:
    """As far as that can be had without one: other processes, another boot of the kernel, no networks."""
    vm_id = await counting(caller)
    before = await count(caller, vm_id)
    await sleep(caller, vm_id)
    meta = directory(host, vm_id) / "asleep.json"
    async with asyncio.timeout(60):
        while not json.loads(meta.read_text())["flushed"]:
            await asyncio.sleep(0.05)
    host.kill()
    installation = (host.data / "host" / "network-id").read_text().strip()
    for namespace in Path("/run/mags", installation, "net").iterdir():
        kernel.unpin(namespace)
    saved = json.loads(meta.read_text())
    meta.write_text(json.dumps({**saved, "boot_id": "another"}))
    host.start()
    await caller.ready()
    assert await count(caller, vm_id) >= before
    dialed = await caller.ask("dial", m.Dial(vm_id=vm_id, port=8080), m.Dialed)
    serving = asyncio.create_task(caller.exec(vm_id, "echo reached | nc -l -p 8080", timeout_s=60))
    async with asyncio.timeout(60):
        while True:
            try:
                reader, writer = await asyncio.open_connection(dialed.address, dialed.port)
                break
            except OSError:
                await asyncio.sleep(0.1)
        assert await reader.readline() == b"reached\n"
    writer.close()
    await serving


async def test_a_vm_with_local_files_only_goes_when_it_has_slept_for_long(caller: Caller, host: HostProgram) -> None:
    kept, _ = await caller.start(None, keep="stay")
    await sleep(caller, kept)
    host.kill()
    host.start(local_retention_s=1)
    await caller.ready()
    gone = await caller.told(m.VmChanged, vm_id=kept, state="gone")
    assert "slept for longer" in gone.reason
    await host.forgets(kept)
    host.kill()
    host.start()
    await caller.ready()
