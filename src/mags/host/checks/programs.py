"""Programs that Mags calls and that are not Python packages."""

from __future__ import annotations

import shutil
from pathlib import Path

from mags.host.checks.check import Check
from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu.machine import Hypervisor
from mags.kit.process import CommandError, run

QEMU = "qemu-system-x86_64"

TOOLS = (
    ("nft", "nftables", True, "networks of VMs"),
    ("mkfs.ext4", "e2fsprogs", True, "disks of VMs"),
    ("debugfs", "e2fsprogs", True, "building images"),
    ("qemu-img", "qemu-utils", True, "building images"),
    ("ip", "iproute2", False, "looking into networks by hand"),
    ("mmdebstrap", "mmdebstrap", False, "`mags image build debian`"),
    ("ssh", "openssh-client", False, "`mags ssh`"),
)
"""Program, its Debian package, whether nothing goes without it, and what it is for."""


async def qemu(program: str = QEMU) -> Check:
    found = shutil.which(program)
    if found is None:
        advice = "Install qemu-system-x86, 8.2 or newer (Debian 12: from bookworm-backports)."
        return Check("QEMU", False, f"no {program} on PATH", advice)
    try:
        banner = (await run([found, "--version"], timeout=30)).text
        hypervisor = Hypervisor.parse(Path(found), banner)
    except CommandError as error:
        return Check("QEMU", False, str(error), f"Run `{found} --version` and see what it says.")
    except VmmError as error:
        advice = (
            "Debian 12: `apt-get install -t bookworm-backports qemu-system-x86`. Debian 13, Ubuntu 24.04: as it is."
        )
        return Check("QEMU", False, str(error), advice)
    return Check("QEMU", True, f"{hypervisor.version} ({found})")


def tools() -> list[Check]:
    found = []
    for program, package, needed, use in TOOLS:
        path = shutil.which(program)
        if path is not None:
            found.append(Check(program, True, path))
        else:
            ok = False if needed else None
            found.append(Check(program, ok, f"not on PATH; for {use}", f"Install it: `apt-get install {package}`."))
    return found
