"""How templates come to be: a machine is booted, rehearsed and saved; before the first, KVM is tried.

    boot --rehearsal--> (agent ready) --save--> bare template --settling--> (root mounted) --save--> rooted template

Anything else is an error, and nothing is left. A builder that is killed leaves its QEMU and its directory; the next
host program sweeps them.
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
from mags.host.vmm.qemu.template import Template, TemplateStore, kind, template_key
from mags.host.vmm.qemu.vm import pass_file, read_console
from mags.host.vmm.spec import GIB, VmSpec
from mags.kit.locks import exclusive
from mags.kit.process import CommandError, run

Rehearsal = Callable[[Path], Awaitable[None]]
"""Given the agent's socket of a template: bring its guest to where clones begin, touching what they will need.

The first waits for a booting agent. The second, the settling, mounts the root, on an empty work disk.
"""

BOOT_TIMEOUT = 120.0
"""Seconds for a guest to boot and rehearse: about 3 on an idle host under TCG, many on a busy one."""
BUILD_TIMEOUT = 600.0
"""Seconds to wait for another process that builds the same template."""
SAVE_TIMEOUT = 60.0
NOBODY = 65534
"""The user that QEMU runs as while it makes a template: no user's code runs in it."""
WORK_DISK = "work.qcow2"
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
        settling: Rehearsal,
        *,
        setting: str,
        trial_timeout: float,
    ) -> None:
        self.hypervisor, self.images = hypervisor, images
        self.templates = TemplateStore(state / "templates")
        self._rehearsal, self._settling = rehearsal, settling
        self._state, self._setting, self._trial_timeout = state, setting, trial_timeout
        self._deciding = asyncio.Lock()
        self.verdict: Verdict | None = accelerators.known(setting, state, hypervisor)
        """None until a guest has been tried."""

    def find(self, spec: VmSpec) -> Template | None:
        """A template that the spec can be cloned from at once: rooted with its size of disk, else bare.

        ImageMissing if not even the image is there.
        """
        if self.verdict is None:
            return None
        boot_key = self.images.key(spec.image)
        keys = [self._key(spec, self.verdict, boot_key, rooted=rooted) for rooted in (True, False)]
        return self.templates.find(keys[0]) or self.templates.find(keys[1])

    async def template(self, spec: VmSpec, files: BootFiles, *, rooted: bool) -> Template:
        """The template, made now if there is none. VmmError when it cannot be."""
        try:
            verdict = await self._decide(spec, files)
            key = self._key(spec, verdict, files.key, rooted=rooted)
            found = self.templates.find(key)
            if found is not None:
                return found
            bare = self._key(spec, verdict, files.key, rooted=False)
            # Both kinds are made at once, so one lock guards them.
            async with exclusive(self.templates.lock(bare), timeout=BUILD_TIMEOUT):
                if self.templates.find(key) is None:
                    await self._build(spec, files, bare, verdict)
                found = self.templates.find(key)
        except TimeoutError as error:
            raise VmmError("Another program has been making the same template for too long.") from error
        except (OSError, CommandError) as error:
            raise VmmError(f"The template could not be written: {error}") from error
        if found is None:
            raise VmmError("The template was removed as soon as it was made.")
        return found

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

    def _key(self, spec: VmSpec, verdict: Verdict, boot_key: str, *, rooted: bool) -> str:
        return template_key(spec, self.hypervisor, verdict.accelerator, boot_key, rooted=rooted)

    async def _build(self, spec: VmSpec, files: BootFiles, bare: str, verdict: Verdict) -> None:
        scratch = self.templates.scratch(bare)
        size = spec.disk_gb * GIB
        try:
            async with self._booted(spec, files, scratch, verdict.accelerator) as (process, qmp):
                await process.unless_dead(self._rehearse(self._rehearsal, scratch, qmp, BOOT_TIMEOUT))
                await process.unless_dead(_save(qmp, scratch / "state"))
                if self.templates.find(bare) is None:
                    copy = scratch / "ram.bare"
                    await run(["cp", "--sparse=always", "--reflink=auto", scratch / "ram", copy], timeout=120)
                    name = kind(spec, rooted=False)
                    await self.templates.publish(bare, name, size, ram=copy, state=scratch / "state")
                (scratch / "state").unlink(missing_ok=True)
                await process.unless_dead(qmp.execute("cont"))
                await process.unless_dead(self._rehearse(self._settling, scratch, qmp, BOOT_TIMEOUT))
                await process.unless_dead(_save(qmp, scratch / "state"))
            work, disk = scratch / WORK_DISK, scratch / "disk"
            await run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", work, disk], timeout=120)
            made = {"ram": scratch / "ram", "state": scratch / "state", "disk": disk}
            key = self._key(spec, verdict, files.key, rooted=True)
            await self.templates.publish(key, kind(spec, rooted=True), size, **made)
        finally:
            await processes.remove_tree(scratch)

    @asynccontextmanager
    async def _booted(
        self, spec: VmSpec, files: BootFiles, scratch: Path, accelerator: str
    ) -> AsyncIterator[tuple[Process, Qmp]]:
        """A machine that boots; ended with the block."""
        blank = await self.images.blank(spec.disk_gb)
        disk = Disk(blank, scratch / WORK_DISK, durable=False)
        overlay.create(disk.overlay, blank, spec.disk_gb * GIB, owner=NOBODY)
        ram, boot = Ram(scratch / "ram", RamUse.WRITE), Boot(files.kernel, files.initramfs)
        machine = Machine(self.hypervisor, accelerator, spec, str(scratch), files.rootfs, ram, disk, boot)
        process, qmp = await start.cold(machine, scratch, uid=NOBODY)
        try:
            yield process, qmp
        finally:
            await process.kill()
            await qmp.aclose()

    async def _rehearse(self, rehearsal: Rehearsal, scratch: Path, qmp: Qmp, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await rehearsal(scratch / processes.AGENT)
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
                await process.unless_dead(self._rehearse(self._rehearsal, scratch, qmp, self._trial_timeout))
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
