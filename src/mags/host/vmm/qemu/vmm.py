"""QemuVmm: the driver. Clones VMs from templates, builds templates, adopts what an earlier host program left."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from mags.host.images import BootFiles, ImageStore
from mags.host.vmm.driver import ProcessGroup, SnapshotUnusable, TapSource, VmmError
from mags.host.vmm.qemu import accelerator as accelerators
from mags.host.vmm.qemu import overlay, snapshot, start
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu import record as records
from mags.host.vmm.qemu.accelerator import AUTOMATIC, Verdict
from mags.host.vmm.qemu.increment import Applied, apply_file
from mags.host.vmm.qemu.machine import KVM, WORK_NODE, Boot, Disk, Hypervisor, Machine, Ram, RamUse, supported
from mags.host.vmm.qemu.process import Process
from mags.host.vmm.qemu.qmp import Qmp
from mags.host.vmm.qemu.record import Record
from mags.host.vmm.qemu.template import Template, TemplateStore, template_key
from mags.host.vmm.qemu.vm import QemuVm, pass_file, read_console
from mags.host.vmm.spec import GIB, VmSpec, WorkDisk
from mags.kit.locks import exclusive
from mags.kit.process import run

Rehearsal = Callable[[Path], Awaitable[None]]
"""Given the agent's socket of a booting template: wait until it is ready, and touch what every clone will need."""

BOOT_TIMEOUT = 120.0
"""Seconds for a guest to boot and rehearse: about 4 on an idle host under TCG, many on a busy one."""
BUILD_TIMEOUT = 600.0
"""Seconds to wait for another process that builds the same template."""
SAVE_TIMEOUT = 60.0
NOBODY = 65534
"""The user that QEMU runs as while it makes a template: no user's code runs in it."""
OVERLAY = "work.qcow2"


class QemuVmm:
    """See driver.Vmm. Made by `open`."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        images: ImageStore,
        state: Path,
        rehearsal: Rehearsal,
        *,
        accelerator: str = AUTOMATIC,
        trial_timeout: float = accelerators.TRIAL_TIMEOUT,
    ) -> None:
        self.hypervisor, self.images, self.state = hypervisor, images, state
        self.templates = TemplateStore(state / "templates")
        self._rehearsal, self._setting, self._trial_timeout = rehearsal, accelerator, trial_timeout
        self._verdict: Verdict | None = None
        self._deciding = asyncio.Lock()
        self._keys: dict[VmSpec, str] = {}

    @classmethod
    async def open(
        cls,
        images: ImageStore,
        state: Path,
        rehearsal: Rehearsal,
        *,
        accelerator: str = AUTOMATIC,
        program: str = "qemu-system-x86_64",
        trial_timeout: float = accelerators.TRIAL_TIMEOUT,
    ) -> QemuVmm:
        """VmmError where QEMU is missing or too old, or the machine is of an architecture without a driver.

        state: a directory for templates and the accelerator's verdict. accelerator: "auto", "kvm" or "tcg".
        """
        if not supported():
            raise VmmError("Mags runs VMs on x86_64 only.")
        found = shutil.which(program)
        if found is None:
            raise VmmError(f"{program} is not installed.")
        processes.keep_descriptors()
        banner = (await run([found, "--version"], timeout=30)).text
        hypervisor = Hypervisor.parse(Path(found), banner)
        vmm = cls(hypervisor, images, state, rehearsal, accelerator=accelerator, trial_timeout=trial_timeout)
        known = accelerators.recall(state)
        if accelerator != AUTOMATIC or known is not None:
            await vmm._decide(None)
        return vmm

    @property
    def version(self) -> str:
        return self.hypervisor.version

    @property
    def accelerator(self) -> str:
        """ "kvm" or "tcg"; "auto" before the first template has shown which."""
        return self._verdict.accelerator if self._verdict is not None else AUTOMATIC

    def ready(self, spec: VmSpec) -> bool:
        key = self._keys.get(_shape(spec))
        return key is not None and self.templates.find(key) is not None

    async def warm(self, spec: VmSpec) -> None:
        await self._template(spec, await self.images.boot_files(spec.image))

    async def clone(
        self,
        spec: VmSpec,
        directory: Path,
        *,
        namespace: TapSource | None,
        uid: int,
        work_disk: WorkDisk | None = None,
        group: ProcessGroup | None = None,
    ) -> QemuVm:
        files = await self.images.boot_files(spec.image)
        template = await self._template(spec, files)
        disk = work_disk or WorkDisk(await self.images.blank(spec.disk_gb), spec.disk_gb * GIB)
        # Its disk may lie there already: the only thing that would be lost with the directory.
        afresh = disk.overlay is not None and disk.overlay.parent == directory
        directory.mkdir(parents=True, mode=0o711, exist_ok=afresh)
        if afresh:
            snapshot.discard(directory)
        try:
            drive = _drive(directory, disk, uid, durable=work_disk is not None)
            machine = self._machine(spec, directory, files, Ram(template.ram, RamUse.COPY), drive, None)
            process, qmp = await start.restored(
                machine, directory, template.state, uid=uid, namespace=namespace, group=group
            )
            return await self._finish(spec, directory, process, qmp, template, uid, disk.size)
        except BaseException:
            if not afresh:
                await processes.remove_tree(directory)
            raise

    def asleep(self, directory: Path) -> bool:
        return snapshot.is_asleep(directory)

    async def flush(self, directory: Path) -> None:
        await snapshot.flush(directory)

    async def wake(
        self,
        spec: VmSpec,
        directory: Path,
        *,
        namespace: TapSource | None,
        uid: int,
        work_disk: WorkDisk | None = None,
        group: ProcessGroup | None = None,
    ) -> QemuVm:
        size = spec.memory_mb << 20
        snapshot.usable(directory, version=self.version, accelerator=self.accelerator, memory_bytes=size)
        files = await self.images.boot_files(spec.image)
        disk = work_disk or WorkDisk(await self.images.blank(spec.disk_gb), spec.disk_gb * GIB)
        drive = Disk(disk.base, directory / OVERLAY, durable=work_disk is not None)
        memory = directory / snapshot.MEMORY
        machine = replace(self._machine(spec, directory, files, Ram(memory, RamUse.COPY), drive, None), stopped=True)
        memory.chmod(0o400)
        record = records.load(directory)
        try:
            process, qmp = await start.restored(
                machine, directory, directory / snapshot.DEVICES, uid=uid, namespace=namespace, group=group,
                ignore_shared=False,
            )  # fmt: skip
        except start.StateRefused as error:
            raise SnapshotUnusable(f"QEMU can't go on from its memory image: {error}") from error
        try:
            key = record.template if record is not None else ""
            made = Record(spec, uid, process.pid, process.started, key, self.accelerator, self.version)
            records.save(directory, made)
            # From here on the image must not be used again: the guest is about to change its disk.
            snapshot.forget(directory)
            await process.unless_dead(qmp.execute("cont"))
        except BaseException:
            await process.kill()
            await qmp.aclose()
            raise
        return QemuVm(spec, directory, process, qmp, origin=(self.version, self.accelerator))

    def salvage(self, directory: Path, target: Path) -> Applied:
        return apply_file(directory / OVERLAY, target)

    async def adopt(self, directory: Path) -> QemuVm | None:
        record = records.load(directory)
        process = self._find(directory, record)
        if process is None:
            return None
        try:
            qmp = await process.unless_dead(Qmp.connect(directory / processes.MONITOR))
            status = (await process.unless_dead(qmp.execute("query-status")))["status"]
        except VmmError:
            await process.kill()
            return None
        # A VM that is asleep on disk and also has a process was being put to sleep, or woken: the image is whole, and
        # nothing has run since.
        if record is None or status not in ("running", "paused") or snapshot.is_asleep(directory):
            await process.kill()
            await qmp.aclose()
            return None
        return QemuVm(record.spec, directory, process, qmp, origin=(record.version, record.accelerator))

    def _find(self, directory: Path, record: Record | None) -> Process | None:
        pid = record.pid if record is not None else None
        if pid is None:
            # Killed between the start of QEMU and the writing of the record.
            pid = processes.find_by_name(self.hypervisor.program, str(directory))
            if pid is None:
                return None
        try:
            process = Process(pid, directory)
        except (ProcessLookupError, FileNotFoundError):
            return None
        if record is not None and process.started != record.started:
            process.release()
            return None
        return process

    async def _finish(
        self, spec: VmSpec, directory: Path, process: Process, qmp: Qmp, template: Template, uid: int, size: int
    ) -> QemuVm:
        """From a restored machine to a VM with a record."""
        try:
            record = Record(spec, uid, process.pid, process.started, template.key, self.accelerator, self.version)
            records.save(directory, record)
            if size != template.disk_bytes:
                await process.unless_dead(qmp.execute("block_resize", node_name=WORK_NODE, size=size))
        except BaseException:
            await process.kill()
            await qmp.aclose()
            raise
        return QemuVm(spec, directory, process, qmp, origin=(self.version, self.accelerator))

    async def _template(self, spec: VmSpec, files: BootFiles) -> Template:
        await self._decide(spec)
        shape = _shape(spec)
        key = template_key(shape, self.hypervisor, self.accelerator, files.key)
        template = self.templates.find(key)
        if template is None:
            async with exclusive(self.templates.lock(key), timeout=BUILD_TIMEOUT):
                template = self.templates.find(key)
                if template is None:
                    template = await self._build(shape, files, key)
        self._keys[shape] = key
        return template

    async def _build(self, spec: VmSpec, files: BootFiles, key: str) -> Template:
        scratch = self.templates.scratch(key)
        try:
            process, qmp = await self._boot(spec, files, scratch, self.accelerator)
            try:
                await process.unless_dead(self._rehearse(scratch, qmp, BOOT_TIMEOUT))
                await process.unless_dead(_save(qmp, scratch / "state"))
            finally:
                await process.kill()
                await qmp.aclose()
            return await self.templates.publish(scratch, key, spec, spec.disk_gb * GIB)
        finally:
            await processes.remove_tree(scratch)

    async def _boot(self, spec: VmSpec, files: BootFiles, scratch: Path, accelerator: str) -> tuple[Process, Qmp]:
        blank = WorkDisk(await self.images.blank(spec.disk_gb), spec.disk_gb * GIB)
        drive = _drive(scratch, blank, NOBODY, durable=False)
        ram = Ram(scratch / "ram", RamUse.WRITE)
        boot = Boot(files.kernel, files.initramfs)
        machine = self._machine(spec, scratch, files, ram, drive, boot, accelerator)
        return await start.cold(machine, scratch, uid=NOBODY)

    async def _rehearse(self, scratch: Path, qmp: Qmp, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._rehearsal(scratch / processes.AGENT)
        except TimeoutError as error:
            lines = (await read_console(qmp)).strip().splitlines()
            said = f"its console says: {' | '.join(lines[-5:])}" if lines else "its console is empty"
            raise VmmError(f"The guest did not boot within {timeout:g} s; {said}") from error

    async def _decide(self, spec: VmSpec | None) -> None:
        """Make sure of the accelerator; a trial boots `spec`."""
        async with self._deciding:
            if self._verdict is not None:
                return

            async def trial() -> None:
                if spec is None:
                    raise VmmError("nothing to boot")
                await self._try_kvm(_shape(spec))

            self._verdict = await accelerators.decide(self._setting, self.state, self.hypervisor, trial)

    async def _try_kvm(self, spec: VmSpec) -> None:
        scratch = self.templates.scratch(f"trial-{os.getpid()}")
        try:
            files = await self.images.boot_files(spec.image)
            process, qmp = await self._boot(spec, files, scratch, KVM)
            try:
                await process.unless_dead(self._rehearse(scratch, qmp, self._trial_timeout))
            finally:
                await process.kill()
                await qmp.aclose()
        finally:
            await processes.remove_tree(scratch)

    def _machine(
        self,
        spec: VmSpec,
        directory: Path,
        files: BootFiles,
        ram: Ram,
        disk: Disk,
        boot: Boot | None,
        accelerator: str | None = None,
    ) -> Machine:
        chosen = accelerator or self.accelerator
        return Machine(self.hypervisor, chosen, spec, str(directory), files.rootfs, ram, disk, boot)


def _shape(spec: VmSpec) -> VmSpec:
    """The spec with what does not matter to a template taken out."""
    return VmSpec(spec.image, spec.vcpus, spec.memory_mb)


def _drive(directory: Path, disk: WorkDisk, uid: int, *, durable: bool) -> Disk:
    path = disk.overlay
    if path is None:
        path = directory / OVERLAY
        overlay.create(path, disk.base, disk.size, owner=uid)
    return Disk(disk.base, path, durable)


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
