"""Removes all networks of an installation, when nobody uses them any more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mags.host.network import claims
from mags.host.network.addresses import Subnet
from mags.host.network.rules import Policy
from mags.host.network.workshop import Site, Workshop

ANY = Subnet.parse("10.231.0.0/16")
"""What is removed is found by name; addresses don't matter."""


def demolish(runtime: Path, installation: str) -> int:
    """Namespaces, links, the host's rules, and the directory; how many namespaces there were. Repeatable. Blocks.

    Processes in a namespace keep it, without a way out: end them before. NetworkUnavailable when nft refuses.
    """
    directory = runtime / installation
    workshop = Workshop(Site(installation, directory / "net", ANY, Policy()))
    try:
        found = workshop.wrecker.submit(workshop.existing).result()
        for index in found:
            workshop.wrecker.submit(workshop.destroy, index).result()
        if not workshop.wrecker.submit(workshop.host_rules_gone).result():
            workshop.wrecker.submit(workshop.remove_host_rules).result()
    finally:
        workshop.close()
    with suppress(OSError):
        (directory / "net").rmdir()
    (directory / claims.OWNER).unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()
    return len(found)
