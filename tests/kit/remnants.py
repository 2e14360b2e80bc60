"""What is left of somebody's in the kernel and in /tmp: by the ids of networks, by directory, or of anybody at all."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from pathlib import Path

from mags.host.network.claims import ID_FILE, owners
from tests.kit.sessions import RUNTIME, SESSIONS


def of_networks(ids: Collection[str]) -> list[str]:
    """Links, tables, control groups and pinned namespaces of the installations with these ids."""
    if not ids:
        return []
    found = [f"link {name}" for name in _names("/sys/class/net") if name.startswith(tuple(f"mg{id}-" for id in ids))]
    found += [table for table in _tables() if any(id in table for id in ids)]
    found += [group for group in _groups() if group.rpartition("/mags-")[2] in ids]
    found += [str(path) for id in ids for path in RUNTIME.glob(f"{id}/**/*")]
    return found


def of_places(places: Collection[Path]) -> list[str]:
    """Mounts below these directories, and what installations with their data there have in the kernel."""
    here = [place.absolute() for place in places]
    found = [f"mount {point}" for _, point, _ in _mounts() if any(Path(point).is_relative_to(one) for one in here)]
    ids = {file.read_text().strip() for one in here if not found for file in one.rglob(ID_FILE)}
    ids |= {id for id, state in owners(RUNTIME) if any(state.is_relative_to(one) for one in here)}
    return found + of_networks(ids)


def of_anybody() -> set[str]:
    """Of this kind on the whole machine, by whomever."""
    things = {f"netns {name}" for name in _names("/run/netns")}
    things |= {f"link {name}" for name in _names("/sys/class/net")}
    things |= {f"file {RUNTIME}/{name}" for name in _names(str(RUNTIME))}
    things |= {f"file /tmp/{name}" for name in _names("/tmp") if name.startswith("mags-") and name != SESSIONS.name}
    things |= {table for table in _tables() if "mags" in table} | set(_groups())
    for device, point, kind in _mounts():
        if kind.startswith(("fuse", "nfs")) or "mags" in point or "mags" in device:
            things.add(f"mount {kind} {point}")
    return things


def _names(directory: str) -> list[str]:
    try:
        return sorted(entry.name for entry in Path(directory).iterdir())
    except FileNotFoundError:
        return []


def _tables() -> list[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def _groups() -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").glob("**/mags-*") if path.is_dir()]


def _mounts() -> list[tuple[str, str, str]]:
    """(device, point, kind) of each."""
    words = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [(one[0], one[1], one[2]) for one in words]
