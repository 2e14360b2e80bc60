"""What this machine allows: QEMU, the driver and the guest channel, with nothing of ours above them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from pathlib import Path

from bench.table import Row, row
from mags.host.guest import Channel, Configure, Exec
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu.process import Inheritance
from mags.host.vmm.qemu.qmp import Qmp
from tests.kit import sessions, vms

CLONES = 20
ECHOES = 30
SPEC = dataclasses.replace(vms.SPEC, memory_mb=512, disk_gb=8)
"""What a job gets by default."""


SPEED = "the machine: a million squares, in Python"


def _since(begin: float) -> float:
    return (time.perf_counter() - begin) * 1000


async def measure() -> tuple[list[Row], Row]:
    """The rows, and the one that others are compared with."""
    images = await vms.open_images()
    vmm = await vms.open_vmm(images)
    await vmm.warm(SPEC)
    with sessions.folder() as folder:
        starts = [await _start(vmm, folder / f"q{number}") for number in range(CLONES)]
        rows = [row(SPEED, "ms", [_sum() for _ in range(CLONES)]), row("QEMU: start to monitor ready", "ms", starts)]
        more, baseline = await _clones(vmm, folder)
    return [*rows, *more, baseline], baseline


def _sum() -> float:
    """How fast the machine is at this moment; nothing of ours is in it. Says which runs can be compared."""
    begin = time.perf_counter()
    sum(number * number for number in range(1_000_000))
    return _since(begin)


async def _start(vmm: QemuVmm, directory: Path) -> float:
    """A QEMU that does nothing, started as ours are."""
    directory.mkdir()
    inherited = Inheritance()
    with processes.listening(directory / processes.MONITOR) as sock:
        number = inherited.add(sock.fileno())
        command = [str(vmm.hypervisor.program), "-M", "none", "-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-chardev", f"socket,id=m,fd={number},server=on,wait=off", "-mon", "chardev=m,mode=control"]
        begin = time.perf_counter()
        process = processes.spawn(command, directory, inherited, namespace=None, group=None)
    qmp = await process.unless_dead(Qmp.connect(directory / processes.MONITOR))
    taken = _since(begin)
    await process.kill()
    await qmp.aclose()
    return taken


async def _clones(vmm: QemuVmm, folder: Path) -> tuple[list[Row], Row]:
    runs, greets, firsts, fresh, used, echoes = ([] for _ in range(6))
    for number in range(CLONES):
        begin = time.perf_counter()
        vm = await vmm.clone(SPEC, folder / f"v{number}", namespace=None, uid=vms.UID + number)
        runs.append(_since(begin))
        channel = await Channel.connect(vm.channel_path, timeout=60)
        greets.append(_since(begin))
        fresh.append(await vm.memory_mb())
        wish = Configure(
            clock_ns=time.time_ns(), entropy=os.urandom(64), hostname="bench", root=True, disk_bytes=vm.disk_bytes
        )
        begin = time.perf_counter()
        await channel.configure(wish)
        await _echo(channel)
        firsts.append(_since(begin))
        used.append(await vm.memory_mb())
        if number == CLONES - 1:
            for _ in range(ECHOES + 5):
                begin = time.perf_counter()
                await _echo(channel)
                echoes.append(_since(begin))
        await channel.aclose()
        await vm.destroy()
        await asyncio.sleep(0.1)
    rows = [
        row("bare clone: running", "ms", runs),
        row("bare clone: agent greets", "ms", greets),
        row("bare clone: configured, first echo", "ms", firsts),
        row("private memory of an idle clone", "MB", fresh, goal=40),
        row("private memory after a first command", "MB", used),
    ]
    return rows, row("baseline: sh -c 'echo hi', guest channel, warm VM", "ms", echoes[5:], goal=25)


async def _echo(channel: Channel) -> None:
    process = await channel.exec(Exec(argv=("/bin/sh", "-c", "echo hi")))
    while (piece := await process.next_output()) is not None:
        process.acknowledge(piece.stream, piece.offset + len(piece.data))
    await process.release()
