"""What an installation keeps in the kernel while no host program of it runs, and its end.

    hypervisors, the volume's mount and its processes, networks with their rules, control groups

`clear` is for an installation that is to be quiet; `clear_abandoned` for those whose state is gone: nobody can take
their VMs over any more. Files of the state stay. A VM that is asleep needs none of this: it gets a new network.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mags.host.isolation import Cgroups
from mags.host.network import claims
from mags.host.network.demolition import demolish
from mags.kit import pidfiles
from mags.kit.locks import exclusive
from mags.kit.process import CommandError, run

log = logging.getLogger(__name__)

LOCK = "lock"
"""In the state: held by the host program that runs on it."""
LOCK_S = 15.0
"""Seconds that a host program has to end which was just told to."""
UNMOUNT_S = 10.0
"""Seconds that an unmount, or the end of who served a mount, may linger before it is forced."""


class NotCleared(Exception):
    """Something is still in use; the sentence says what."""


def hypervisors(state: Path) -> list[int]:
    """Pids of the VMs' processes, and of those that make templates."""
    return [pid for pid, words in _processes() if _is_hypervisor(words, state)]


async def clear(state: Path, runtime: Path, *, lock_timeout: float = LOCK_S) -> None:
    """End and remove everything. Harmless if repeated. NotCleared, NetworkError, TimeoutError when that can't be."""
    try:
        installation = (state / claims.ID_FILE).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return  # no host program has ever run on it
    try:
        async with exclusive(state / LOCK, timeout=lock_timeout):
            await _clear(state, runtime, installation)
    except TimeoutError as error:
        raise NotCleared(f"A host program runs on {state}: end it before.") from error


async def clear_abandoned(runtime: Path) -> list[Path]:
    """The same for every installation below `runtime` whose state is gone; the states that were. Never raises."""
    cleared = []
    for installation, state in claims.owners(runtime):
        if not claims.is_gone(state, installation):
            continue
        try:
            await _clear(state, runtime, installation)
            cleared.append(state)
            log.warning("removed what an installation left whose data are gone (%s)", state)
        except NotCleared as error:
            log.info("%s", error)
        except Exception as error:
            log.warning("can't remove all that an installation left whose data are gone (%s): %s", state, error)
    return cleared


async def _clear(state: Path, runtime: Path, installation: str) -> None:
    with claims.unused(runtime / installation) as nobodys:
        if not nobodys:
            raise NotCleared(f"A program uses the networks of {state}: end it before.")
        await end_below(state)
        groups = Cgroups.detect(installation)
        await groups.sweep(())
        groups.close()
        await asyncio.to_thread(demolish, runtime, installation)


async def end_below(state: Path) -> None:
    """Hypervisors and mounts below the state (the innermost first), and the processes that served these."""
    await _end(_is_hypervisor, state, grace=0)
    for point in sorted(_mounts(state), reverse=True):
        try:
            await run(["umount", point], timeout=UNMOUNT_S)
        except CommandError:  # busy, dead, or its last upload lingers
            await run(["umount", "-l", point], timeout=UNMOUNT_S, check=False)
    if left := _mounts(state):
        raise NotCleared(f"{left[0]} can't be unmounted.")
    await _end(_is_volume, state, grace=UNMOUNT_S)


async def _end(matches: Callable[[list[str], Path], bool], state: Path, *, grace: float) -> None:
    """All processes whose command line matches, at once. TimeoutError if one does not end."""
    async with asyncio.TaskGroup() as tasks:
        for pid, words in _processes():
            if matches(words, state):
                tasks.create_task(_end_one(pid, lambda words: matches(words, state), grace))


async def _end_one(pid: int, matches: Callable[[list[str]], bool], grace: float) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked at when the descriptor holds the process fast: the number can't be given out between.
        if matches(_command(pid)):
            await pidfiles.end_process(descriptor, grace=grace)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def _is_hypervisor(words: list[str], state: Path) -> bool:
    """QEMU, or what is about to become it, with a `-name` below the state (vmm.qemu names a VM by its directory)."""
    name = words[words.index("-name") + 1 :][:1] if "-name" in words else []
    qemu = any(Path(word).name.startswith("qemu-system-") for word in words[:16])
    return qemu and bool(name) and _is_below(name[0].replace(",,", ","), state)


def _is_volume(words: list[str], state: Path) -> bool:
    """A `juicefs mount` of a directory below the state."""
    mounts = [Path(word).name for word in words[:1]] == ["juicefs"] and words[1:2] == ["mount"]
    return mounts and any(_is_below(word, state) for word in words[2:])


def _is_below(text: str, state: Path) -> bool:
    return text.startswith((f"{state}/", f"{state.resolve()}/"))


def _mounts(state: Path) -> list[str]:
    points = []
    for line in Path("/proc/self/mounts").read_bytes().splitlines():
        escaped = line.split(b" ")[1].removesuffix(b"//deleted")
        point = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes((int(found[1], 8),)), escaped))
        if _is_below(point, state):
            points.append(point)
    return points


def _processes() -> Iterator[tuple[int, list[str]]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (words := _command(int(entry.name))):
            yield int(entry.name), words


def _command(pid: int) -> list[str]:
    """The command line of a process; empty when there is none."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in text.rstrip(b"\0").split(b"\0")] if text else []
