"""Start a machine: cold, from the kernel; or restored, from a state that another QEMU has saved.

A machine is started in a directory that the caller has made and removes again when this fails. On failure no process
is left.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path

from mags.host.vmm.driver import ProcessGroup, TapSource
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu.machine import Descriptors, Machine
from mags.host.vmm.qemu.process import Inheritance, Process
from mags.host.vmm.qemu.qmp import Qmp

IGNORE_SHARED: list[dict[str, object]] = [{"capability": "x-ignore-shared", "state": True}]
"""The state leaves out memory that lies in a file: the file is all of it."""
START_TIMEOUT = 60.0
"""Seconds for QEMU to serve its monitor, or to load a state: some 40 ms on an idle host."""


async def cold(machine: Machine, directory: Path, *, uid: int) -> tuple[Process, Qmp]:
    """Boot the kernel, without a network."""
    process = _spawn(machine, directory, uid, Inheritance(), None, None)
    return process, await _connect(process, directory)


async def restored(
    machine: Machine,
    directory: Path,
    state: Path,
    *,
    uid: int,
    namespace: TapSource | None,
    group: ProcessGroup | None,
    ignore_shared: bool = True,
) -> tuple[Process, Qmp]:
    """Load `state`, and run unless the machine is to stand still. `ignore_shared`: as the state was saved."""
    inherited = Inheritance()
    descriptor = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
    try:
        number = inherited.add(descriptor)
        process = _spawn(machine, directory, uid, inherited, namespace, group)
    finally:
        os.close(descriptor)
    qmp = await _connect(process, directory)
    try:
        load = _load_stopped if machine.stopped else _load
        await process.unless_dead(load(qmp, number, IGNORE_SHARED if ignore_shared else []))
    except BaseException:
        await _abandon(process, qmp)
        raise
    return process, qmp


async def _load_stopped(qmp: Qmp, descriptor: int, capabilities: list[dict[str, object]]) -> None:
    await qmp.execute("migrate-set-capabilities", capabilities=capabilities)
    await qmp.execute("migrate-incoming", uri=f"fd:{descriptor}")
    async with asyncio.timeout(START_TIMEOUT):
        while (await qmp.execute("query-status"))["status"] == "inmigrate":
            await asyncio.sleep(0.001)


async def _load(qmp: Qmp, descriptor: int, capabilities: list[dict[str, object]]) -> None:
    with qmp.events("RESUME") as events:
        await qmp.execute("migrate-set-capabilities", capabilities=capabilities)
        await qmp.execute("migrate-incoming", uri=f"fd:{descriptor}")
        # QEMU runs the machine by itself as soon as it is complete, and exits when it cannot be.
        await qmp.first(events, timeout=START_TIMEOUT)


def _spawn(
    machine: Machine,
    directory: Path,
    uid: int,
    inherited: Inheritance,
    namespace: TapSource | None,
    group: ProcessGroup | None,
) -> Process:
    with ExitStack() as stack:
        monitor = stack.enter_context(processes.listening(directory / processes.MONITOR))
        agent = stack.enter_context(processes.listening(directory / processes.AGENT))
        tap = None
        if namespace is not None:
            descriptor = namespace.open_tap(uid)
            stack.callback(os.close, descriptor)
            tap = inherited.add(descriptor)
        descriptors = Descriptors(inherited.add(monitor.fileno()), inherited.add(agent.fileno()), tap)
        command = machine.command(descriptors, user=uid, root=directory / processes.ROOT)
        path = namespace.path if namespace is not None else None
        return processes.spawn(command, directory, inherited, namespace=path, group=group)


async def _connect(process: Process, directory: Path) -> Qmp:
    try:
        return await process.unless_dead(Qmp.connect(directory / processes.MONITOR, timeout=START_TIMEOUT))
    except BaseException:
        await process.kill()
        raise


async def _abandon(process: Process, qmp: Qmp) -> None:
    await process.kill()
    await qmp.aclose()
