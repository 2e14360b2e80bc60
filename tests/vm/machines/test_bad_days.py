"""What users do to their VMs, and what happens to ours: the VM may suffer, nothing else does."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mags.protocol import messages as m
from tests.kit.host_world import PATIENCE, Caller, HostProgram

pytestmark = pytest.mark.vm

SMALL = m.VmSpec(memory_mb=256, disk_gb=1)


async def test_a_fork_bomb_does_not_take_the_vm_from_its_owner(caller: Caller) -> None:
    vm_id, job_id = await caller.start("bomb() { bomb | bomb & }; bomb; sleep 1000", keep="stay", spec=SMALL)
    await asyncio.sleep(1)
    result = await caller.exec(vm_id, "echo still here", timeout_s=PATIENCE)
    assert (result.exit_code, result.stdout) == (0, b"still here\n")
    await caller.ask("stop", m.Stop(vm_id=vm_id), m.Done)
    assert (await caller.ended(job_id)).error == "The job was stopped."


async def test_a_script_that_fills_memory_is_killed_and_the_vm_lives(caller: Caller) -> None:
    vm_id, job_id = await caller.start("tail /dev/zero", keep="stay", spec=SMALL)
    ended = await caller.ended(job_id)
    assert ended.exit_code == 137 and "ran out of memory" in (ended.error or "")
    assert b"ran out of memory" in ended.system
    assert (await caller.exec(vm_id, "echo alive")).stdout == b"alive\n"
    result = await caller.exec(vm_id, "exec tail /dev/zero", timeout_s=PATIENCE)
    assert (result.exit_code, result.stderr) == (137, b"mags: the VM ran out of memory\n")


async def test_a_script_that_fills_its_disk_is_told_so(caller: Caller) -> None:
    script = (
        "dd if=/dev/zero of=/root/big bs=1M count=2000 2>&1 | tail -n 1; rm /root/big; echo ok > /root/f && cat /root/f"
    )
    ended = await caller.whole(f"fallocate -l 950M /root/most; {script}", spec=SMALL)
    assert ended.stdout.endswith(b"ok\n"), ended


async def test_output_of_every_kind_arrives_as_it_was(caller: Caller) -> None:
    vm_id, job_id = await caller.start("head -c 10000000 /dev/zero", keep="stay", spec=SMALL)
    assert (await caller.ended(job_id)).stdout == bytes(10_000_000)  # and not one newline

    ended = await caller.run(vm_id, r"printf '\377\376\000caf\303'; printf '\351' >&2")
    assert (ended.stdout, ended.stderr) == (b"\xff\xfe\0caf\xc3", b"\xe9")

    ended = await caller.run(vm_id, "exec >&- 2>&-; sleep 0.1; exit 3")
    assert (ended.stdout, ended.exit_code) == (b"", 3)

    # What is left in the background does not hold the script's end up.
    ended = await caller.run(vm_id, "sleep 1000 & echo done")
    assert (ended.stdout, ended.exit_code) == (b"done\n", 0)

    ended = await caller.run(vm_id, "#" * 1_000_000 + "\necho long")
    assert (ended.stdout, ended.exit_code) == (b"long\n", 0)

    ended = await caller.run(vm_id, "#!/no/such\necho never")
    assert ended.exit_code == 127 and b"the script: its interpreter is missing: /no/such" in ended.system


async def test_a_script_that_kills_all_it_can_kills_only_its_world(caller: Caller) -> None:
    vm_id, job_id = await caller.start("kill -9 -1; echo not alone", keep="stay", spec=SMALL)
    ended = await caller.ended(job_id)
    assert ended.exit_code in (0, 137)
    assert (await caller.exec(vm_id, "echo alive")).stdout == b"alive\n"
    ended = await caller.run(vm_id, "rm -rf /bin /sbin /usr /lib 2>/dev/null; echo gone")
    assert ended.stdout == b"gone\n"
    await caller.ask("files", m.Files(vm_id=vm_id, action="stat", path="/root"), m.FilesResult)


async def test_a_vm_that_reboots_itself_ends_its_job_with_the_reason(caller: Caller, host: HostProgram) -> None:
    vm_id, job_id = await caller.start("echo up; reboot -f; sleep 1000", spec=SMALL)
    ended = await caller.ended(job_id)
    assert ended.stdout == b"up\n" and ended.exit_code is None
    assert "powered off, rebooted or crashed" in (ended.error or "")
    await caller.told(m.VmChanged, vm_id=vm_id, state="failed")
    await host.forgets(vm_id)


async def test_a_hypervisor_that_is_killed_costs_its_own_job_only(caller: Caller, host: HostProgram) -> None:
    other, _ = await caller.start(None, keep="stay", spec=SMALL)
    vm_id, job_id = await caller.start("echo up; sleep 1000", spec=SMALL)
    os.kill(host.hypervisor(vm_id), signal.SIGKILL)
    ended = await caller.ended(job_id)
    assert ended.exit_code is None and "signal 9" in (ended.error or "")
    assert (await caller.told(m.JobEnded, job_id=job_id)).error == ended.error
    await host.forgets(vm_id)
    assert (await caller.exec(other, "echo alive")).stdout == b"alive\n"


async def test_two_vms_are_unlike_where_they_must_be(caller: Caller) -> None:
    script = "cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1; date +%s; cat /proc/sys/kernel/random/uuid"
    one, two = await asyncio.gather(*(caller.whole(script, spec=SMALL) for _ in range(2)))
    first, second = one.stdout.split(b"\n"), two.stdout.split(b"\n")
    assert first[0] != second[0] and first[1] != second[1] and first[3] != second[3]
    assert abs(int(first[2]) - int(second[2])) < PATIENCE
