"""A machine's memory saved and woken, by the driver alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mags.host.guest import Channel, Configure
from mags.host.vmm.driver import SnapshotUnusable, VmmError
from mags.host.vmm.qemu import QemuVmm, start
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu.qmp import Qmp
from mags.host.vmm.spec import VmSpec
from tests.kit import vms
from tests.kit.vms import SPEC, TIMEOUT, UID, Running

pytestmark = pytest.mark.vm


async def asleep(world: Running) -> Path:
    """Put the VM to sleep; where it lies."""
    await world.channel.aclose()
    await world.vm.save()
    return world.vm.directory


async def woken(vmm: QemuVmm, directory: Path) -> Running:
    """The VM, awake, with its clock and entropy right."""
    vm = await vmm.wake(SPEC, directory, namespace=None, uid=UID)
    await vm.resume()
    channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
    await channel.configure(Configure(clock_ns=time.time_ns(), entropy=os.urandom(64)), timeout=TIMEOUT)
    return Running(vm, channel)


def booted(directory: Path, number: str) -> None:
    """It was saved under this boot of the machine."""
    meta = msgspec.json.decode((directory / "asleep.json").read_bytes())
    (directory / "asleep.json").write_bytes(msgspec.json.encode({**meta, "boot_id": number}))


async def test_everything_goes_on_after_sleep(vmm: QemuVmm, running: Running) -> None:
    await running.run(
        "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && echo kept > /tmp/m/file;"
        "(exec 3>/root/open; i=0; while :; do i=$((i+1));"
        " echo $i > /tmp/m/next; mv /tmp/m/next /tmp/m/count; echo $i >&3; sleep 0.02; done) &"
        "date -s @1000000"
    )
    directory = await asleep(running)
    assert vmm.asleep(directory) and await running.vm.died
    for _ in range(3):
        world = await woken(vmm, directory)
        try:
            assert not vmm.asleep(directory)
            script = (
                "cat /tmp/m/file; a=$(cat /tmp/m/count); sleep 0.3; b=$(cat /tmp/m/count); test $b -gt $a && echo on"
            )
            asked = time.time()
            ended, output = await world.run(script + "; tail -1 /root/open | grep -c .; date +%s; date -s @1000000")
            assert (ended.code, output.split()[:3]) == (0, ["kept", "on", "1"])
            assert asked - 2 <= int(output.split()[3]) <= time.time() + 2
        finally:
            await asleep(world)
    await (await woken(vmm, directory)).vm.destroy()


def missing(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def changed(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"wrong")


def zeroed(path: Path) -> None:
    """A page of it, as by a file system that was repaired."""
    with path.open("r+b") as file:
        file.seek(os.lseek(file.fileno(), 0, os.SEEK_DATA))
        file.write(bytes(4096))


def flipped(path: Path) -> None:
    """One bit, somewhere in the middle."""
    with path.open("r+b") as file:
        middle = os.lseek(file.fileno(), path.stat().st_size // 2, os.SEEK_DATA)
        (byte,) = os.pread(file.fileno(), 1, middle)
        os.pwrite(file.fileno(), bytes([byte ^ 1]), middle)


async def test_a_damaged_image_starts_afresh_with_its_disk(vmm: QemuVmm, running: Running) -> None:
    await running.run("echo precious > /root/file; sync")
    directory = await asleep(running)
    await vmm.flush(directory)
    kept = directory.with_name("kept")
    subprocess.run(["cp", "-a", directory, kept], check=True, timeout=60)

    async def refused(damage: Callable[[Path], None], file: str, *, times: bool = True) -> None:
        """`times`: the file says when it was changed."""
        path, before = directory / file, (directory / file).stat()
        damage(path)
        if not times:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(SnapshotUnusable, match="memory image"):
            await vmm.wake(SPEC, directory, namespace=None, uid=UID)
        subprocess.run(["cp", "-a", kept / file, directory], check=True, timeout=60)

    for file in ("memory", "devices", "asleep.json"):
        for damage in (missing, truncated, changed):
            await refused(damage, file)
    for damage in (truncated, changed, zeroed, flipped):
        await refused(damage, "devices", times=False)
    await refused(truncated, "memory", times=False)
    # It is another boot of the machine, and the disk gives back something else than it was given.
    booted(directory, "another")
    await (await vmm.wake(SPEC, directory, namespace=None, uid=UID)).kill()
    for damage in (changed, zeroed, flipped):
        await refused(damage, "memory", times=False)
    (directory / "memory").unlink()
    vm = await vmm.restart(SPEC, directory, namespace=None, uid=UID)
    async with vms.running(vm) as world:
        ended, output = await world.run("cat /root/file")
        assert (ended.code, output) == (0, "precious\n")
    assert not vmm.asleep(directory)
    await vm.destroy()


async def test_states_that_are_wrong_but_look_right_are_refused(vmm: QemuVmm, running: Running) -> None:
    """The check sums fit, and QEMU does not take it."""
    directory = await asleep(running)
    devices = (directory / "devices").read_bytes()
    damaged = devices[: len(devices) // 2]
    (directory / "devices").write_bytes(damaged)
    meta = msgspec.json.decode((directory / "asleep.json").read_bytes())
    meta["devices_sha256"] = hashlib.sha256(damaged).hexdigest()
    (directory / "asleep.json").write_bytes(msgspec.json.encode(meta))
    with pytest.raises(SnapshotUnusable):
        await vmm.wake(SPEC, directory, namespace=None, uid=UID)
    assert await vmm.adopt(directory) is None


async def test_a_vm_that_dies_before_it_was_told_to_run_sleeps_on(vmm: QemuVmm, running: Running) -> None:
    await running.run("mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && echo kept > /tmp/m/file")
    directory = await asleep(running)
    vm = await vmm.wake(SPEC, directory, namespace=None, uid=UID)
    await vm.kill()
    assert vmm.asleep(directory)
    # So it does when the host program is told to end, or dies.
    vm = await vmm.wake(SPEC, directory, namespace=None, uid=UID)
    await vm.release()
    assert await vmm.adopt(directory) is None and vmm.asleep(directory)
    world = await woken(vmm, directory)
    assert (await world.run("cat /tmp/m/file"))[1] == "kept\n"
    await world.vm.destroy()


async def test_a_hypervisor_that_is_killed_while_it_loads_is_no_damage(
    vmm: QemuVmm, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does when memory is short."""
    directory = await asleep(running)
    with monkeypatch.context() as shot:
        load = start._load

        async def shoot(qmp: Qmp, capabilities: list[dict[str, object]]) -> None:
            pid = processes.find_by_name(vmm.hypervisor.program, str(directory))
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await load(qmp, capabilities)

        shot.setattr(start, "_load", shoot)
        with pytest.raises(VmmError) as caught:
            await vmm.wake(SPEC, directory, namespace=None, uid=UID)
        assert not isinstance(caught.value, SnapshotUnusable)
    await (await woken(vmm, directory)).vm.destroy()


async def test_a_memory_that_wakes_twice_is_not_random_in_the_same_way(vmm: QemuVmm, running: Running) -> None:
    directory = await asleep(running)
    kept = directory.with_name("kept")
    subprocess.run(["cp", "-a", "--sparse=always", directory, kept], check=True, timeout=60)
    numbers = []
    for _ in range(2):
        world = await woken(vmm, directory)
        numbers.append((await world.run("head -c 16 /dev/urandom | od -An -tx1"))[1])
        await world.vm.destroy()
        subprocess.run(["cp", "-a", "--sparse=always", kept, directory], check=True, timeout=60)
    assert numbers[0] != numbers[1] and len(set(numbers[0].split())) > 4


async def test_after_a_restart_of_the_machine_only_what_was_flushed_counts(vmm: QemuVmm, running: Running) -> None:
    directory = await asleep(running)
    here = json.loads((directory / "asleep.json").read_bytes())["boot_id"]
    booted(directory, "another")
    # It comes too late: nobody knows what is on the disk.
    await vmm.flush(directory)
    with pytest.raises(SnapshotUnusable, match="restarted"):
        await vmm.wake(SPEC, directory, namespace=None, uid=UID)
    booted(directory, here)
    await vmm.flush(directory)
    booted(directory, "another")
    world = await woken(vmm, directory)
    await vmm.flush(directory)
    assert not vmm.asleep(directory)
    await world.vm.destroy()


async def test_a_full_disk_leaves_it_running(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", place], check=True, timeout=30)
    try:
        async with vms.cloned(vmm, place, spec=template) as vm, vms.running(vm) as world:
            with pytest.raises(VmmError, match="disk is full"):
                await vm.save()
            assert not vmm.asleep(vm.directory)
            ended, output = await world.run("echo still here")
            assert (ended.code, output) == (0, "still here\n")
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, timeout=30)


async def test_a_vm_half_asleep_is_found_again(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> None:
    """The host program dies at any step: the VM is either asleep or as it was."""
    vm = await vmm.clone(template, tmp_path / "vm", namespace=None, uid=UID)
    async with vms.running(vm) as world:
        await world.run("echo here > /dev/shm/mark 2>/dev/null || echo here > /tmp/mark")
    # Before it is saved: paused, with half of an image.
    await vm.copy_base()
    await vm.pause()
    (vm.directory / "devices").write_bytes(b"half")
    await vm.release()
    adopted = await vmm.adopt(vm.directory)
    assert adopted is not None and not vmm.asleep(vm.directory)
    await adopted.resume()
    async with vms.running(adopted) as world:
        # Saved, and its process still there.
        await world.channel.aclose()
        kill, adopted.kill = adopted.kill, nothing  # type: ignore[method-assign]
        await adopted.save()
        adopted.kill = kill  # type: ignore[method-assign]
        await adopted.release()
    assert await vmm.adopt(vm.directory) is None
    assert vmm.asleep(vm.directory)
    last = await woken(vmm, vm.directory)
    _, output = await last.run("cat /dev/shm/mark /tmp/mark 2>/dev/null")
    assert output == "here\n"
    await last.vm.destroy()


async def nothing() -> None:
    """A host program that was killed does not do the next thing."""


async def test_a_flush_that_is_late_does_not_touch_a_newer_sleep(vmm: QemuVmm, running: Running) -> None:
    directory = await asleep(running)
    late = asyncio.create_task(vmm.flush(directory))
    await asyncio.sleep(0)
    world = await woken(vmm, directory)
    await asleep(world)
    await late
    world = await woken(vmm, directory)
    ended, output = await world.run("echo here")
    assert (ended.code, output) == (0, "here\n")
    await world.vm.destroy()
