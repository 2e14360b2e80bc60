"""The modules of the kernel that a host uses."""

from __future__ import annotations

import platform
from pathlib import Path

from mags.host.checks.check import Check

NETWORKS = (
    "tun", "veth", "nf_tables", "nf_conntrack", "nf_nat", "nft_chain_nat", "nft_ct", "nft_nat", "nft_masq", "nft_redir",
    "nft_fib_inet", "nft_reject_inet", "nft_limit", "nft_connlimit",
)  # fmt: skip
"""For the networks of VMs: their devices, and what the rules in network/rules.py say."""
WANTED = (*NETWORKS, "fuse")
LOAD_NETWORKS = f"`modprobe -a {' '.join(NETWORKS)}`"


def modules(
    release: str = platform.release(), tree: Path = Path("/lib/modules"), loaded: Path = Path("/sys/module")
) -> Check:
    """Whether they are loaded, built in, or there to be loaded. What they do is tried by other checks."""
    directory = tree / release
    absent = [name for name in WANTED if not (loaded / name).exists()]
    if not (directory / "modules.dep").is_file():
        return Check("kernel modules", True, f"no {directory} to load from; networks, tap devices and FUSE are tried")
    built_in, on_disk = (_names(directory / name) for name in ("modules.builtin", "modules.dep"))
    absent = [name for name in absent if name not in built_in]
    lacking = [name for name in absent if name not in on_disk]
    if lacking:
        advice = f"Reboot after an update of the kernel. Ubuntu: `apt-get install linux-modules-extra-{release}`."
        return Check("kernel modules", None, f"{directory} lacks {', '.join(lacking)}", advice)
    if absent:
        advice = f"The kernel loads them when they are used; where it may not: `modprobe -a {' '.join(absent)}`."
        return Check("kernel modules", True, f"not loaded yet: {', '.join(absent)}", advice)
    return Check("kernel modules", True, f"loaded or built in: {', '.join(WANTED)}")


def _names(index: Path) -> set[str]:
    """Of modules.dep or modules.builtin: `kernel/net/tun.ko.xz: ...` -> `tun`."""
    paths = (line.partition(":")[0] for line in index.read_text().splitlines())
    return {path.rpartition("/")[2].partition(".")[0].replace("-", "_") for path in paths}
