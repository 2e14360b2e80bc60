"""QemuVmm: the driver. Clones VMs from templates, builds templates, adopts what an earlier host program left."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mags.host.images import BootFiles, ImageMissing, ImageStore
from mags.host.vmm.driver import ProcessGroup, SnapshotUnusable, TapSource, VmmError
from mags.host.vmm.qemu import overlay, recovery, snapshot, start
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu import record as records
from mags.host.vmm.qemu.accelerator import AUTOMATIC, TRIAL_TIMEOUT
from mags.host.vmm.qemu.answers import Status
from mags.host.vmm.qemu.builder import Builder, Rehearsal
from mags.host.vmm.qemu.increment import Applied, apply_file
from mags.host.vmm.qemu.machine import WORK_NODE, Disk, Hypervisor, Machine, Ram, RamUse, supported
from mags.host.vmm.qemu.process import Process
from mags.host.vmm.qemu.qmp import Qmp
from mags.host.vmm.qemu.record import Record
from mags.host.vmm.qemu.template import Template
from mags.host.vmm.qemu.vm import QemuVm
from mags.host.vmm.spec import GIB, VmSpec, WorkDisk
from mags.kit.process import CommandError, run

OVERLAY, BASE, IMAGE = "work.qcow2", "base.raw", "image.raw"
"""In a VM's directory. What it shares with others is linked there, so that it stays when a new one takes its name."""


class QemuVmm:
    """See driver.Vmm. Made by `open`."""

    def __init__(self, builder: Builder) -> None:
        self.hypervisor, self.images, self._builder = builder.hypervisor, builder.images, builder

    @classmethod
    async def open(
        cls,
        images: ImageStore,
        state: Path,
        rehearsal: Rehearsal,
        settling: Rehearsal,
        *,
        accelerator: str = AUTOMATIC,
        program: str = "qemu-system-x86_64",
        trial_timeout: float = TRIAL_TIMEOUT,
    ) -> QemuVmm:
        """VmmError where QEMU is missing or too old, or the machine is of an architecture without a driver.

        state: a directory for templates and the accelerator's verdict. accelerator: "auto", "kvm" or "tcg".
        """
        if not supported():
            raise VmmError("Mags runs VMs on x86_64 only.")
        found = shutil.which(program)
        if found is None:
            raise VmmError(f"{program} is not installed.")
        processes.prepare()
        banner = (await run([found, "--version"], timeout=30)).text
        hypervisor = Hypervisor.parse(Path(found), banner)
        builder = Builder(
            hypervisor, images, state, rehearsal, settling, setting=accelerator, trial_timeout=trial_timeout
        )
        await builder.sweep()
        return cls(builder)

    @property
    def version(self) -> str:
        return self.hypervisor.version

    @property
    def accelerator(self) -> str:
        """ "kvm" or "tcg"; "auto" before the first template has shown which."""
        verdict = self._builder.verdict
        return verdict.accelerator if verdict is not None else AUTOMATIC

    def ready(self, spec: VmSpec) -> bool:
        try:
            return self._builder.find(spec) is not None
        except ImageMissing:
            return False

    async def warm(self, spec: VmSpec) -> None:
        await self._builder.template(spec, await self.images.boot_files(spec.image), rooted=True)

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
        template = await self._template(spec, files, own_disk=work_disk is not None)
        disk = work_disk or WorkDisk(await self._base(template, spec), spec.disk_gb * GIB)
        # Its disk may lie there already: the only thing that would be lost with the directory.
        afresh = disk.overlay is not None and disk.overlay.parent == directory
        try:
            directory.mkdir(parents=True, mode=0o711, exist_ok=afresh)
        except OSError as error:
            raise VmmError(f"The directory of the VM cannot be made: {error}") from error
        try:
            if afresh:
                await snapshot.discard(directory)
                records.forget(directory)
            if work_disk is None:
                disk = replace(disk, base=await _link(disk.base, directory / BASE, copy=True))
            image = await _link(files.rootfs, directory / IMAGE, copy=False)
            drive = _drive(directory, disk, uid, durable=work_disk is not None)
            machine = self._machine(spec, directory, image, template.ram, drive)
            process, qmp = await start.restored(
                machine, directory, template.state, uid=uid, namespace=namespace, group=group
            )
            return await self._finish(spec, directory, process, qmp, template, uid, disk)
        except BaseException as error:
            if not afresh:
                await processes.remove_tree(directory)
            if isinstance(error, OSError | CommandError):
                raise VmmError(f"The VM cannot be made: {error}") from error
            raise

    async def restart(
        self,
        spec: VmSpec,
        directory: Path,
        *,
        namespace: TapSource | None,
        uid: int,
        work_disk: WorkDisk | None = None,
        group: ProcessGroup | None = None,
    ) -> QemuVm:
        disk = work_disk or WorkDisk(directory / BASE, spec.disk_gb * GIB)
        own = replace(disk, overlay=directory / OVERLAY)
        return await self.clone(spec, directory, namespace=namespace, uid=uid, work_disk=own, group=group)

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
        await snapshot.check(directory, version=self.version, accelerator=self.accelerator, memory_bytes=size)
        if not (directory / IMAGE).exists():
            raise SnapshotUnusable(f"The image {spec.image!r} that it runs on is gone.")
        disk = work_disk or WorkDisk(directory / BASE, spec.disk_gb * GIB)
        drive = Disk(disk.base, directory / OVERLAY, durable=work_disk is not None)
        memory = directory / snapshot.MEMORY
        machine = replace(self._machine(spec, directory, directory / IMAGE, memory, drive), stopped=True)
        with _as_vmm_errors("The VM can't be woken now"):
            memory.chmod(0o400)
            record = records.load(directory)
            records.forget(directory)
            try:
                process, qmp = await start.restored(
                    machine, directory, directory / snapshot.DEVICES, uid=uid, namespace=namespace, group=group,
                    ignore_shared=False,
                )  # fmt: skip
            except start.StateRefused as error:
                raise SnapshotUnusable(f"QEMU can't go on from its memory image: {error}") from error
            try:
                key = record.template if record is not None else ""
                made = Record(
                    spec, uid, process.pid, process.started, key, self.accelerator, self.version, base=str(disk.base)
                )
                records.save(directory, made)
            except BaseException:
                await process.kill()
                await qmp.aclose()
                raise
        return QemuVm(
            spec, directory, process, qmp, base=disk.base, origin=(self.version, self.accelerator), dormant=True
        )

    def salvage(self, directory: Path, target: Path, size: int) -> Applied:
        return apply_file(directory / OVERLAY, target, size, torn=True)

    async def adopt(self, directory: Path) -> QemuVm | None:
        with _as_vmm_errors("Whether the VM lives can't be told now"):
            record = records.load(directory)
            process = self._find(directory, record)
        if process is None:
            return None
        try:
            qmp = await process.unless_dead(Qmp.connect(directory / processes.MONITOR))
        except VmmError:
            await process.kill()
            return None
        try:
            status = (await process.unless_dead(qmp.ask("query-status", Status))).status
        except VmmError:
            status = "unknown"
        # A VM that is asleep on disk and also has a process was being put to sleep, or woken: the image is whole, and
        # nothing has run since.
        if record is None or status not in ("running", "paused", recovery.STATUS) or snapshot.is_asleep(directory):
            await process.kill()
            await qmp.aclose()
            return None
        base = Path(record.base) if record.base else None
        return QemuVm(record.spec, directory, process, qmp, base=base, origin=(record.version, record.accelerator))

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
        self, spec: VmSpec, directory: Path, process: Process, qmp: Qmp, template: Template, uid: int, disk: WorkDisk
    ) -> QemuVm:
        """From a restored machine to a VM with a record."""
        try:
            record = Record(
                spec, uid, process.pid, process.started, template.key, self.accelerator, self.version,
                base=str(disk.base),
            )  # fmt: skip
            records.save(directory, record)
            resized = None if disk.size == template.disk_bytes else disk.size
            if resized is not None:
                await process.unless_dead(qmp.execute("block_resize", node_name=WORK_NODE, size=resized))
        except BaseException:
            await process.kill()
            await qmp.aclose()
            raise
        vm = QemuVm(spec, directory, process, qmp, base=disk.base, origin=(self.version, self.accelerator))
        vm.disk_bytes = resized
        return vm

    async def _template(self, spec: VmSpec, files: BootFiles, *, own_disk: bool) -> Template:
        """What to clone from. A disk of another size than usual is no reason to keep anybody waiting for a build."""
        if not own_disk and (ready := self._builder.find(spec)) is not None:
            return ready
        return await self._builder.template(spec, files, rooted=not own_disk)

    async def _base(self, template: Template, spec: VmSpec) -> Path:
        return template.disk if template.rooted else await self.images.blank(spec.disk_gb)

    def _machine(self, spec: VmSpec, directory: Path, image: Path, memory: Path, disk: Disk) -> Machine:
        """One that waits for a state."""
        ram = Ram(memory, RamUse.COPY)
        return Machine(self.hypervisor, self.accelerator, spec, str(directory), image, ram, disk, boot=None)


@contextmanager
def _as_vmm_errors(words: str) -> Iterator[None]:
    """What the system refuses may be had later."""
    try:
        yield
    except OSError as error:
        raise VmmError(f"{words}: {error}") from error


async def _link(file: Path, name: Path, *, copy: bool) -> Path:
    """Another name for a file that may lose its own. Where the file systems differ: a copy, or a mere reference."""
    name.unlink(missing_ok=True)
    try:
        name.hardlink_to(file)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        if copy:
            await run(["cp", "--sparse=always", "--reflink=auto", file, name], timeout=120)
        else:
            name.symlink_to(file)
    return name


def _drive(directory: Path, disk: WorkDisk, uid: int, *, durable: bool) -> Disk:
    path = disk.overlay
    if path is None:
        path = directory / OVERLAY
        overlay.create(path, disk.base, disk.size, owner=uid)
    return Disk(disk.base, path, durable)
