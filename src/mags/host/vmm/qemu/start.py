"""Start a machine: cold, from the kernel; or restored, from a state that another QEMU has saved.

A machine is started in a directory that the caller has made and removes again when this fails. On failure no process
is left.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

from mags.host.vmm.driver import ProcessGroup, TapSource, VmmError
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu.machine import STATE_SET, Descriptors, Machine
from mags.host.vmm.qemu.process import Inheritance, Process
from mags.host.vmm.qemu.qmp import Qmp, QmpTimeout

IGNORE_SHARED: list[dict[str, object]] = [{"capability": "x-ignore-shared", "state": True}]
"""The state leaves out memory that lies in a file: the file is all of it."""
REPORT = {"capability": "events", "state": True}
START_TIMEOUT = 60.0
"""Seconds for QEMU to serve its monitor, or to load a state: some 40 ms on an idle host."""


class StateRefused(VmmError):
    """QEMU runs, but does not take the state."""


async def cold(machine: Machine, directory: Path, *, uid: int) -> tuple[Process, Qmp]:
    """Boot the kernel, without a network."""
    process = _spawn(machine, directory, uid, None, None, None)
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
    """Load `state`, and run unless the machine is to stand still. `ignore_shared`: as the state was saved.

    StateRefused when it is the state that is wrong.
    """
    process = _spawn(machine, directory, uid, namespace, group, state)
    qmp = await _connect(process, directory)
    try:
        try:
            await process.unless_dead(_load(qmp, IGNORE_SHARED if ignore_shared else []))
        except QmpTimeout:
            raise
        except VmmError as error:
            if process.signal == SIGKILL:
                raise  # somebody's doing, such as the kernel's when memory is short: the state is as good as before
            raise StateRefused(str(error)) from error
        if not machine.stopped:
            await process.unless_dead(qmp.execute("cont"))
    except BaseException:
        await _abandon(process, qmp)
        raise
    return process, qmp


async def _load(qmp: Qmp, capabilities: list[dict[str, object]]) -> None:
    """Load the state; the machine then stands still, as it did when it was saved."""
    with qmp.events("MIGRATION") as events:
        await qmp.execute("migrate-set-capabilities", capabilities=[*capabilities, REPORT])
        await qmp.execute("migrate-incoming", uri=f"file:/dev/fdset/{STATE_SET}")
        # When it fails, QEMU exits.
        while (await qmp.first(events, timeout=START_TIMEOUT))["data"].get("status") != "completed":
            pass


def _spawn(
    machine: Machine,
    directory: Path,
    uid: int,
    namespace: TapSource | None,
    group: ProcessGroup | None,
    state: Path | None,
) -> Process:
    inherited = Inheritance()
    with ExitStack() as stack:
        monitor = stack.enter_context(processes.listening(directory / processes.MONITOR))
        agent = stack.enter_context(processes.listening(directory / processes.AGENT))
        descriptors = Descriptors(inherited.add(monitor.fileno()), inherited.add(agent.fileno()))
        if namespace is not None:
            tap = namespace.open_tap(uid)
            stack.callback(os.close, tap)
            descriptors = replace(descriptors, tap=inherited.add(tap))
        if state is not None:
            saved = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, saved)
            descriptors = replace(descriptors, state=inherited.add(saved))
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
