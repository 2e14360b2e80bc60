"""What a driver of virtual machines offers. The rest of the host programs against these Protocols only.

    Vmm --clone--> Vm (running) --pause--> (paused) --resume--> ... --kill/destroy--> gone
        --adopt--> Vm (as it was left)     --save--> (asleep: a directory, no process)
        --wake--> Vm (standing still, and still asleep) --resume--> (running, as it was saved)

Every method that waits has a deadline inside and raises `VmmError` when it passes, or when the VM dies
under it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from mags.host.vmm.spec import VmSpec, WorkDisk
from mags.host.vmm.stall import Stall


class VmmError(Exception):
    """The driver could not do it; the text says what failed and, where known, the hypervisor's own words."""


class SnapshotUnusable(VmmError):
    """A VM can't wake from its saved memory; the text says why. Its disk is not affected."""


class TapSource(Protocol):
    """The network of one VM, as much as a driver needs of it (network.Namespace is one)."""

    @property
    def path(self) -> Path:
        """The network namespace, as a file that setns(2) takes."""

    def open_tap(self, uid: int) -> int:
        """A descriptor of the namespace's tap device. The caller closes it."""


class ProcessGroup(Protocol):
    """Where the processes of a VM are accounted (isolation.Cgroup is one)."""

    def attach(self, pid: int) -> None: ...


class Applied(Protocol):
    """Bytes of data that were written, and bytes that became zeros."""

    @property
    def data(self) -> int: ...

    @property
    def zeros(self) -> int: ...


class Capture(Protocol):
    """Changes of a disk at one moment, held on the host's own disk."""

    @property
    def freeze_ms(self) -> int: ...

    def apply(self, target: Path, size: int) -> Applied:
        """Write the changes to a raw image, and wait until they are durable there. Blocks: run it in a thread.

        size: bytes of the disk. Nothing beyond is written, whatever a guest has made of its hypervisor.
        """


class DiskChanges(Protocol):
    """What changed on a VM's work disk since it was last asked. One user at a time."""

    async def track(self) -> None:
        """Begin, before the guest can write; or go on after another host program did."""

    async def dirty(self) -> int:
        """Bytes that a capture would hold now."""

    async def capture(self, *, freeze: Callable[[], Awaitable[None]], thaw: Callable[[], Awaitable[None]]) -> Capture:
        """The changes at one moment, between `freeze` and `thaw`. To be accepted or reverted."""

    async def accept(self) -> None:
        """The captured changes are safe elsewhere: forget them."""

    async def revert(self) -> None:
        """They are not: they count as changed again."""


class Vm(Protocol):
    """One virtual machine and its process."""

    @property
    def directory(self) -> Path: ...

    @property
    def spec(self) -> VmSpec: ...

    @property
    def pid(self) -> int: ...

    @property
    def disk_bytes(self) -> int | None:
        """What its work disk was resized to, of which its guest may hear a moment later. None: it was not, or before
        this program."""

    @property
    def channel_path(self) -> Path:
        """The unix socket of the guest agent's channel (host.guest.Channel.connect)."""

    @property
    def died(self) -> asyncio.Future[str]:
        """Resolves with the reason when the VM has ended, by whatever cause. Do not cancel it: shield."""

    @property
    def stall(self) -> Stall:
        """Whether it stands still because its disk does not work at the moment. It goes on by itself."""

    async def pause(self) -> None:
        """Stop the vCPUs (about 1 ms). A paused VM costs no CPU."""

    async def resume(self) -> None:
        """Let the vCPUs run (about 1 ms). A VM that wakes is asleep no more from here on: what was saved is gone."""

    async def listen(self) -> None:
        """Find out whether the hypervisor answers (some seconds at most): if it does not, `stall` says so then."""

    async def copy_base(self) -> None:
        """Prepare `save` while the VM runs on: what can be copied ahead is. Harmless if repeated."""

    async def save(self) -> None:
        """Save memory and devices into the directory and end the process. VmmError: it runs on, and says why.

        The guest's channel must have been closed.
        """

    def changes(self) -> DiskChanges:
        """The changes of its work disk."""

    async def resize_disk(self, size: int) -> None:
        """Give the work disk `size` bytes, at least as many as it has."""

    async def kill(self) -> None:
        """End the VM at once, with no word to the guest, and wait for its process. Harmless if repeated."""

    async def destroy(self) -> None:
        """Kill, and remove the directory with the VM's disk."""

    async def release(self) -> None:
        """Let go of a VM that goes on without us, for another host program to adopt. `died` never resolves then."""

    async def memory_mb(self) -> float:
        """Memory that only this VM uses, MiB (private pages, without what it shares with its template)."""

    async def console(self) -> str:
        """The last bytes (at most 64 KiB) that the guest's kernel wrote to its console."""


class Vmm(Protocol):
    """A hypervisor on this host."""

    @property
    def accelerator(self) -> str: ...

    @property
    def version(self) -> str: ...

    async def clone(
        self,
        spec: VmSpec,
        directory: Path,
        *,
        namespace: TapSource | None,
        uid: int,
        work_disk: WorkDisk | None = None,
        group: ProcessGroup | None = None,
    ) -> Vm:
        """A running VM, restored from the template of its spec (built first when there is none).

        directory: where the VM's sockets, disk and record live; made here, with its parents. Keep its path
            below 80 bytes: it holds unix sockets.
        namespace: the VM's network; None: a network device without a cable.
        uid: the unprivileged user (and group) id that the hypervisor runs as.
        """

    async def adopt(self, directory: Path) -> Vm | None:
        """The VM that an earlier process of the host program left in this directory; None: it is dead."""

    def asleep(self, directory: Path) -> bool:
        """Whether a VM was saved there and has not woken since."""

    async def flush(self, directory: Path) -> None:
        """Make a saved VM outlive a restart of the machine. Harmless if it has woken meanwhile."""

    async def wake(
        self,
        spec: VmSpec,
        directory: Path,
        *,
        namespace: TapSource | None,
        uid: int,
        work_disk: WorkDisk | None = None,
        group: ProcessGroup | None = None,
    ) -> Vm:
        """The VM that was saved in the directory, as it was then: it stands still, and has not woken before it is told
        to `resume`. Killed before, it sleeps on. Arguments as they were for `clone`.

        SnapshotUnusable: it can't be woken; its disk is as it was, and `restart` starts it afresh. Any other VmmError:
        not now; it sleeps on.
        """

    async def restart(
        self,
        spec: VmSpec,
        directory: Path,
        *,
        namespace: TapSource | None,
        uid: int,
        work_disk: WorkDisk | None = None,
        group: ProcessGroup | None = None,
    ) -> Vm:
        """A VM that has lost its memory (dead, or saved), started afresh on its own disk. Arguments as for `clone`.

        What was saved of its memory is removed. The directory with the disk stays, whatever fails.
        """

    def salvage(self, directory: Path, target: Path, size: int) -> Applied:
        """Write what the disk of a dead VM holds over `target`, a copy of its base, durably. Blocks.

        size: bytes of the disk. Nothing beyond is written, whatever a guest has made of its hypervisor's file.
        The file system in it is as after a power cut. VmmError or OSError when that can't be.
        """

    async def warm(self, spec: VmSpec) -> None:
        """Build the template of the spec now, if it is missing or stale."""

    def ready(self, spec: VmSpec) -> bool:
        """Whether a clone of the spec can start without a build before it."""
