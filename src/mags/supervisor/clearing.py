"""After the end: nothing of the installation is left in the kernel; and, on wish, nothing on the disk.

after_the_end   what `mags down` does when no supervisor runs (any more)
end_programs    those of a supervisor that was killed
clear           VMs' processes, mounts, networks, control groups (mags.host.remains)
remove_data     the files
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mags.kit import pidfiles
from mags.supervisor.config import Settings
from mags.supervisor.layout import Layout
from mags.supervisor.lock import Lock, last_record

GRACE, HOST_GRACE = 10.0, 60.0
"""Seconds that a program has to end by itself; the host saves workspaces meanwhile."""


class NotCleared(Exception):
    """Something is left; the sentence says what."""


async def after_the_end(settings: Settings, *, note: Callable[[str], None], at_once: bool) -> bool:
    """End what a killed supervisor has left, and clear. Whether anything ran.

    Its VMs are taken over and put away as an orderly end does it; `at_once`: they end as they are. NotCleared, or
    AlreadyUp.
    """
    layout = Layout(settings.data_dir)
    if not is_installation(layout):
        return False
    layout.make()
    record = last_record(layout)
    lock = Lock(layout)
    try:
        ended, left = await end_programs(layout), vms_left(layout)
    finally:
        lock.release()
    if left and not at_once:
        note(f"taking {left} VMs over that a killed `mags up` has left")
        from mags.supervisor import foreground

        try:
            await foreground.put_away(settings.model_copy(update={"s3": record.get("s3", settings.s3)}), note=note)
        except foreground.FAILURES as error:
            raise NotCleared(f"{error} `mags down --force` ends the VMs as they are.") from error
        if still := vms_left(layout):
            raise NotCleared(f"{still} VMs could not be put away. `mags down --force` ends them as they are.")
    await clear(layout)
    return bool(ended or left)


async def end_programs(layout: Layout) -> int:
    """How many programs a killed supervisor had left. Call it while holding the lock."""
    host = layout.pid_file("host")
    files = sorted(layout.run.glob("*.pid"))
    ends = [pidfiles.end(file, grace=HOST_GRACE if file == host else GRACE) for file in files]
    return sum(await asyncio.gather(*ends))


def vms_left(layout: Layout) -> int:
    """How many processes of VMs there are, whoever may look after them."""
    from mags.host.remains import hypervisors

    return len(hypervisors(layout.host))


async def clear(layout: Layout) -> None:
    """Every VM that still runs ends as it is; those asleep stay so. NotCleared."""
    from mags.host import remains
    from mags.host.config import Settings as HostSettings
    from mags.host.network import NetworkError

    try:
        await remains.clear(layout.host, HostSettings(data_dir=layout.data).runtime_dir)
    except (remains.NotCleared, NetworkError, TimeoutError) as error:
        raise NotCleared(str(error)) from error
    if layout.sockets != layout.run:
        shutil.rmtree(layout.sockets, ignore_errors=True)


def is_installation(layout: Layout) -> bool:
    """Whether `mags up` or a host program has ever been at work there."""
    return layout.lock.exists() or layout.host.exists()


def remove_data(layout: Layout) -> list[Path]:
    """Remove every file of ours: records, images, VMs, workspaces. What there was of others, stays: its paths."""
    for path in layout.everything:
        _remove(path)
    with suppress(OSError):
        layout.data.rmdir()
    return sorted(layout.data.iterdir()) if layout.data.exists() else []


def _remove(path: Path) -> None:
    """Of a mount point (a disk for the host's VMs, say) what is on it; of a link nothing of what it leads to."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    elif path.is_mount():
        for below in path.iterdir():
            _remove(below)
    else:
        shutil.rmtree(path)
