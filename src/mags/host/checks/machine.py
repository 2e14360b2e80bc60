"""The machine itself: rights, memory, disk, ports."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from pathlib import Path

from mags.host.checks.check import Check

GIB = 1 << 30
WORKING_MB = 1024
"""MiB that our programs and the first template want beside the VMs."""
DISK_NEEDED = 4 * GIB
"""Bytes that the default image, its template and a few VMs take."""
DISK_COMFORT = 20 * GIB
OLDEST_PYTHON = (3, 11)
MACHINES = ("x86_64", "aarch64")


def python(version: tuple[int, int] = sys.version_info[:2], machine: str = platform.machine()) -> Check:
    detail = f"Python {version[0]}.{version[1]} on {machine}"
    if version < OLDEST_PYTHON:
        return Check("Python", False, detail, "Install Python 3.11 or newer.")
    if machine not in MACHINES:
        return Check("Python", False, detail, f"Use a machine of one of these kinds: {', '.join(MACHINES)}.")
    return Check("Python", True, detail)


def root(user: int | None = None) -> Check:
    if (os.geteuid() if user is None else user) == 0:
        return Check("rights", True, "root")
    return Check("rights", False, "not root", "Run `sudo mags up`: VMs need networks and users of their own.")


def memory(vm_mb: int, meminfo: Path = Path("/proc/meminfo")) -> Check:
    """vm_mb: MiB of the smallest VM that should run."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    available, total = (int(fields[name].split()[0]) >> 10 for name in ("MemAvailable", "MemTotal"))
    detail = f"{available} MiB of {total} MiB available"
    if available < vm_mb + WORKING_MB // 2:
        return Check("memory", False, detail, f"Free memory: a VM of {vm_mb} MiB does not fit.")
    if available < vm_mb + WORKING_MB:
        return Check("memory", None, detail, "Only one or two VMs fit: free memory for more.")
    return Check("memory", True, detail)


def disk(directory: Path, free: int | None = None) -> Check:
    """directory: the data directory; it need not be there yet. free: bytes, looked up if not given."""
    where = directory
    while not where.exists():
        where = where.parent
    found = shutil.disk_usage(where).free if free is None else free
    detail = f"{found / GIB:.1f} GiB free for {directory}"
    if found < DISK_NEEDED:
        return Check("disk", False, detail, "Free at least 4 GiB, or put the data directory on another disk.")
    if found < DISK_COMFORT:
        return Check("disk", None, detail, "Enough for a few VMs; 20 GiB and more are comfortable.")
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
