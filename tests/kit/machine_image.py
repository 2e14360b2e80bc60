"""Images of programs of this machine, where a distribution's mirror would be needed to have them otherwise."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.kit.mirror import PACKAGE
from tests.kit.python_image import copy_files, libraries

DPKG = ("dpkg", "dpkg-deb", "dpkg-split", "dpkg-query", "tar", "rm", "diff", "ldconfig", "start-stop-daemon", "cat",
        "mkdir", "grep")  # fmt: skip
NODE = ("node", "env", "cat", "mkdir", "ls", "uname")
DEB, TARBALL = f"/opt/{PACKAGE}.deb", f"/opt/{PACKAGE}.tgz"


def make_dpkg_tree(tree: Path, scratch: Path) -> None:
    """A root file system with dpkg, which has installed nothing yet, and a package (`DEB`) with a program and a script
    that runs when it is installed."""
    _programs(tree, DPKG)
    for name in ("info", "updates", "triggers"):
        (tree / "var/lib/dpkg" / name).mkdir(parents=True)
    for name in ("status", "available"):
        (tree / "var/lib/dpkg" / name).touch()
    root = scratch / "deb"
    (root / "DEBIAN").mkdir(parents=True)
    facts = {"Package": PACKAGE, "Version": "1.0", "Architecture": "all", "Maintainer": "a test", "Description": "x"}
    (root / "DEBIAN/control").write_text("".join(f"{name}: {value}\n" for name, value in facts.items()))
    _script(root / "DEBIAN/postinst", "echo configured > /etc/hello-mags.state")
    _script(root / "usr/bin" / PACKAGE, "echo from the deb; cat /etc/hello-mags.state")
    (tree / "opt").mkdir()
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, tree / DEB.lstrip("/")], check=True, timeout=60)


def make_node_tree(tree: Path, scratch: Path) -> None:
    """A root file system with Node.js and npm, and a package (`TARBALL`) with a command."""
    npm = shutil.which("npm")
    assert npm, "npm is not installed: apt-get install nodejs npm"
    _programs(tree, NODE)
    modules = Path(npm).resolve().parents[2]  # .../nodejs of .../nodejs/npm/bin/npm-cli.js
    for folder in {modules, Path("/usr/share/nodejs"), Path("/usr/share/node_modules")}:
        if folder.is_dir():
            shutil.copytree(folder, tree / folder.relative_to("/"), symlinks=True, dirs_exist_ok=True)
    (tree / "usr/bin/npm").symlink_to(Path(npm).resolve())
    root = scratch / "package"
    root.mkdir(parents=True)
    (root / "package.json").write_text(f'{{"name": "{PACKAGE}", "version": "1.0.0", "bin": "hello.js"}}')
    (root / "hello.js").write_text("#!/usr/bin/node\nconsole.log('from the tarball')\n")
    (tree / "opt").mkdir()
    subprocess.run(["tar", "-C", scratch, "-czf", tree / TARBALL.lstrip("/"), "package"], check=True, timeout=60)


def _programs(tree: Path, names: Iterable[str]) -> None:
    """With a shell, and what they are linked with."""
    shell = Path("/bin/sh").resolve()
    files = [shell]
    for name in names:
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
        assert found, f"{name} is not installed"
        files.append(Path(found))
    copy_files(tree, files)
    copy_files(tree, libraries(files))
    (tree / "bin").mkdir(exist_ok=True)
    if not (tree / "bin/sh").exists():
        (tree / "bin/sh").symlink_to(shell)
    for name in ("tmp", "root", "etc"):
        (tree / name).mkdir(exist_ok=True)


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
