"""Packages into an Alpine tree, by its own apk, run in a chroot with namespaces of its own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mags.kit.process import CommandError, run

UPDATE_TIMEOUT = 20.0
"""Seconds for the mirrors to answer; where none is reachable, a build waits this long at most."""
ADD_TIMEOUT = 900.0
RESOLVER = Path("/etc/resolv.conf")


class Added(NamedTuple):
    """The packages that are there afterwards, those that are missing, and whether a mirror answered at all."""

    packages: list[str]
    missing: list[str]
    answered: bool


async def add_packages(
    tree: Path, packages: Sequence[str], repositories: Sequence[str] = (), keys: Path | None = None
) -> Added:
    """Add what can be added."""
    own_resolver = tree / "etc/resolv.conf"
    own_resolver.unlink(missing_ok=True)
    if RESOLVER.exists():
        shutil.copyfile(RESOLVER, own_resolver)
    if repositories:
        (tree / "etc/apk/repositories").write_text("".join(f"{line}\n" for line in repositories))
    if keys is not None:
        for key in keys.iterdir():
            shutil.copyfile(key, tree / "etc/apk/keys" / key.name)
    try:
        await _apk(tree, "update", timeout=UPDATE_TIMEOUT)
    except CommandError:
        answered = False
    else:
        answered = True
    added, missing = [], []
    for package in packages:
        if await _has(tree, package) or (answered and await _add(tree, package)):
            added.append(package)
        else:
            missing.append(package)
    own_resolver.unlink(missing_ok=True)
    shutil.rmtree(tree / "var/cache/apk", ignore_errors=True)
    (tree / "var/cache/apk").mkdir(parents=True)
    return Added(added, missing, answered)


async def _has(tree: Path, package: str) -> bool:
    done = await run(confined(tree, "info", "--installed", package), timeout=UPDATE_TIMEOUT, check=False)
    return done.status == 0


async def _add(tree: Path, package: str) -> bool:
    try:
        await _apk(tree, "add", "--no-cache", package, timeout=ADD_TIMEOUT)
    except CommandError:
        return False
    return True


async def _apk(tree: Path, *words: str, timeout: float) -> None:
    await run(confined(tree, *words), timeout=timeout)


def confined(tree: Path, *words: str) -> list[str]:
    """The command that runs the tree's apk inside it."""
    alone = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    return [*alone, f"--root={tree}", "--wd=/", "/sbin/apk", *words]
