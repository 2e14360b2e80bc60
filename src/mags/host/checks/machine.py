"""The machine itself: rights, memory, disk, ports."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from pathlib import Path

from mags.host.checks.check import Check
from mags.host.images.wheel import PINS

GIB = 1 << 30
PROGRAMS_MB = 512
"""MiB of our programs, once they run."""
IMAGES_GB = 2
"""GiB that the default image, its template and a few VMs take."""
DISK_COMFORT_GB = 10
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
"""That Mags is tested on; as in ./dev and the README."""


def python(version: tuple[int, int] = sys.version_info[:2], machine: str = platform.machine()) -> Check:
    detail = f"Python {version[0]}.{version[1]} on {machine}"
    if machine not in PINS:
        return Check("Python", False, detail, f"Use a machine of this kind: {', '.join(PINS)}.")
    if version < OLDEST_PYTHON:
        return Check("Python", False, detail, "Install Python 3.11 to 3.13.")
    if version > NEWEST_PYTHON:
        return Check("Python", None, detail, "Mags is tested on Python 3.11 to 3.13: use one of them.")
    return Check("Python", True, detail)


def root(user: int | None = None) -> Check:
    if (os.geteuid() if user is None else user) == 0:
        return Check("rights", True, "root")
    return Check("rights", False, "not root", "Run `sudo mags up`: VMs need networks and users of their own.")


def memory(vm_mb: int, reserve_mb: int, running: bool, meminfo: Path = Path("/proc/meminfo")) -> Check:
    """vm_mb: MiB of the smallest VM that should run. reserve_mb: that stay free. running: our programs have theirs."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    available, total = (int(fields[name].split()[0]) >> 10 for name in ("MemAvailable", "MemTotal"))
    detail = f"{available} MiB of {total} MiB available"
    needed = reserve_mb + (0 if running else PROGRAMS_MB)
    if available < needed:
        return Check("memory", False, detail, f"Free memory: with less than {needed} MiB no VM is started.")
    if available < needed + vm_mb:
        return Check(
            "memory", None, detail, f"One VM of {vm_mb} MiB can use it all up: {needed + vm_mb} MiB are better."
        )
    return Check("memory", True, detail)


def disk(directory: Path, reserve_gb: float, free: int | None = None) -> Check:
    """directory: the data directory; it need not be there yet. reserve_gb: that stay free. free: bytes, looked up if
    not given."""
    where = directory
    while not where.exists():
        where = where.parent
    found = (shutil.disk_usage(where).free if free is None else free) / GIB
    detail = f"{found:.1f} GiB free for {directory}"
    if found < (needed := reserve_gb + IMAGES_GB):
        return Check("disk", False, detail, f"Free at least {needed:g} GiB, or put the data directory on another disk.")
    if found < DISK_COMFORT_GB:
        return Check("disk", None, detail, f"Enough for a few VMs; {DISK_COMFORT_GB} GiB and more are comfortable.")
    return Check("disk", True, detail)


def port(address: str, use: str) -> Check:
    """Whether somebody could listen on a TCP address; use: what for."""
    host, _, number = address.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(number)))
        except OSError as error:
            advice = f"`ss -ltnp sport = :{number}` shows who listens there: stop it, or choose another port."
            return Check(f"port {number}", False, f"{use}: {error.strerror}", advice)
    return Check(f"port {number}", True, f"{use}: free")
