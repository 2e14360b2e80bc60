"""How templates come to be: a machine is booted, rehearsed and saved; before the first, KVM is tried.

    boot --rehearsal--> (agent ready, pages warm) --save--> published;   anything else: an error, and nothing is left

A builder that is killed leaves its QEMU and its directory; the next host program sweeps them.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mags.host.images import BootFiles, ImageStore
from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu import accelerator as accelerators
from mags.host.vmm.qemu import overlay, start
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu.accelerator import Verdict
from mags.host.vmm.qemu.machine import KVM, Boot, Disk, Hypervisor, Machine, Ram, RamUse
from mags.host.vmm.qemu.process import Process
from mags.host.vmm.qemu.qmp import Qmp
from mags.host.vmm.qemu.template import Template, TemplateStore, template_key
from mags.host.vmm.qemu.vm import pass_file, read_console
from mags.host.vmm.spec import GIB, VmSpec
from mags.kit.locks import exclusive

Rehearsal = Callable[[Path], Awaitable[None]]
"""Given the agent's socket of a booting template: wait until it is ready, and touch what every clone will need."""

BOOT_TIMEOUT = 120.0
"""Seconds for a guest to boot and rehearse: about 3 on an idle host under TCG, many on a busy one."""
BUILD_TIMEOUT = 600.0
"""Seconds to wait for another process that builds the same template."""
SAVE_TIMEOUT = 60.0
NOBODY = 65534
"""The user that QEMU runs as while it makes a template: no user's code runs in it."""
TRIAL = "trial"
"""In place of a template's key."""


class Builder:
    """Finds templates, and makes those that are missing. setting: "auto", "kvm" or "tcg"."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        images: ImageStore,
        state: Path,
        rehearsal: Rehearsal,
        *,
        setting: str,
        trial_timeout: float,
    ) -> None:
        self.hypervisor, self.images = hypervisor, images
        self.templates = TemplateStore(state / "templates")
        self._state, self._rehearsal, self._setting, self._trial_timeout = state, rehearsal, setting, trial_timeout
        self._deciding = asyncio.Lock()
        self.verdict: Verdict | None = accelerators.known(setting, state, hypervisor)
        """None until a guest has been tried."""

    def find(self, spec: VmSpec) -> Template | None:
        """The template, if it is there; ImageMissing if not even the image is."""
        if self.verdict is None:
            return None
        return self.templates.find(self._key(spec, self.verdict, self.images.key(spec.image)))

    async def template(self, spec: VmSpec, files: BootFiles) -> Template:
        """The template, made now if there is none. VmmError when it cannot be."""
        try:
            verdict = await self._decide(spec, files)
            key = self._key(spec, verdict, files.key)
            found = self.templates.find(key)
            if found is not None:
                return found
            async with exclusive(self.templates.lock(key), timeout=BUILD_TIMEOUT):
                return self.templates.find(key) or await self._build(spec, files, key, verdict.accelerator)
        except TimeoutError as error:
            raise VmmError("Another program has been making the same template for too long.") from error
        except OSError as error:
            raise VmmError(f"The template could not be written: {error}") from error

    async def sweep(self) -> None:
        """End and remove what killed builders have left."""
        for scratch in self.templates.unfinished():
            key = scratch.name[1:].partition(".")[0]
            try:
                async with exclusive(self.templates.lock(key), timeout=0.2):
                    pid = processes.find_by_name(self.hypervisor.program, str(scratch))
                    if pid is not None:
                        os.kill(pid, signal.SIGKILL)
                    await processes.remove_tree(scratch)
            except (TimeoutError, ProcessLookupError):
                continue  # another program is at work there, or it has just ended

    def _key(self, spec: VmSpec, verdict: Verdict, boot_key: str) -> str:
        return template_key(spec, self.hypervisor, verdict.accelerator, boot_key)

    async def _build(self, spec: VmSpec, files: BootFiles, key: str, accelerator: str) -> Template:
        scratch = self.templates.scratch(key)
        try:
            async with self._booted(spec, files, scratch, accelerator) as (process, qmp):
                await process.unless_dead(self._rehearse(scratch, qmp, BOOT_TIMEOUT))
                await process.unless_dead(_save(qmp, scratch / "state"))
            return await self.templates.publish(scratch, key, spec, spec.disk_gb * GIB)
        finally:
            await processes.remove_tree(scratch)

    @asynccontextmanager
    async def _booted(
        self, spec: VmSpec, files: BootFiles, scratch: Path, accelerator: str
    ) -> AsyncIterator[tuple[Process, Qmp]]:
        """A machine that boots; ended with the block."""
        blank = await self.images.blank(spec.disk_gb)
        disk = Disk(blank, scratch / "work.qcow2", durable=False)
        overlay.create(disk.overlay, blank, spec.disk_gb * GIB, owner=NOBODY)
        ram, boot = Ram(scratch / "ram", RamUse.WRITE), Boot(files.kernel, files.initramfs)
        machine = Machine(self.hypervisor, accelerator, spec, str(scratch), files.rootfs, ram, disk, boot)
        process, qmp = await start.cold(machine, scratch, uid=NOBODY)
        try:
            yield process, qmp
        finally:
            await process.kill()
            await qmp.aclose()

    async def _rehearse(self, scratch: Path, qmp: Qmp, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._rehearsal(scratch / processes.AGENT)
        except TimeoutError as error:
            lines = (await read_console(qmp)).strip().splitlines()
            said = f"its console says: {' | '.join(lines[-5:])}" if lines else "its console is empty"
            raise VmmError(f"The guest did not boot within {timeout:g} s; {said}") from error

    async def _decide(self, spec: VmSpec, files: BootFiles) -> Verdict:
        """Make sure of the accelerator, by a trial where nothing else tells."""
        async with self._deciding:
            if self.verdict is None:
                async with exclusive(self.templates.lock(TRIAL), timeout=BUILD_TIMEOUT):
                    self.verdict = accelerators.known(self._setting, self._state, self.hypervisor)
                    if self.verdict is None:
                        trial = functools.partial(self._try_kvm, spec, files)
                        self.verdict = await accelerators.decide(self._state, self.hypervisor, trial)
            return self.verdict

    async def _try_kvm(self, spec: VmSpec, files: BootFiles) -> None:
        scratch = self.templates.scratch(TRIAL)
        try:
            async with self._booted(spec, files, scratch, KVM) as (process, qmp):
                await process.unless_dead(self._rehearse(scratch, qmp, self._trial_timeout))
        finally:
            await processes.remove_tree(scratch)


async def _save(qmp: Qmp, path: Path) -> None:
    """Stop the machine and write its state, without the memory that lies in a file."""
    await qmp.execute("stop")
    await qmp.execute("migrate-set-capabilities", capabilities=start.IGNORE_SHARED)
    file = await pass_file(qmp, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    await qmp.execute("migrate", uri=f"file:{file}")
    deadline = time.monotonic() + SAVE_TIMEOUT
    while (answer := await qmp.execute("query-migrate")).get("status") != "completed":
        if answer.get("status") in ("failed", "cancelled") or time.monotonic() > deadline:
            raise VmmError(f"The state could not be saved: {answer.get('error-desc', answer.get('status'))}")
        await asyncio.sleep(0.002)
