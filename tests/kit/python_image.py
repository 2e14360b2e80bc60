"""An image with Python and pip, from the Python that runs the tests: mirrors of distributions are not everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

NAME = "test-python"
LEFT_OUT = shutil.ignore_patterns("test", "tests", "idlelib", "site-packages", "dist-packages",
                                  "config-*", "lib2to3", "tkinter", "EXTERNALLY-MANAGED", "*.a")  # fmt: skip


def make_tree(tree: Path) -> str:
    """Fill a directory with a root file system; the path of its Python."""
    program = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    pip = Path(sysconfig.get_path("purelib")) / "pip"
    shutil.copytree(library, _inside(tree, library), ignore=LEFT_OUT, symlinks=True)
    places = _inside(tree, Path(sysconfig.get_path("purelib", vars={"base": sys.base_prefix})))
    shutil.copytree(pip, places / "pip")
    # What is not compiled already is compiled at each start in a guest: slow under emulation.
    subprocess.run([program, "-m", "compileall", "-q", "-j", "0", tree], check=False, timeout=300)
    shell = Path("/bin/sh").resolve()
    copy_files(tree, [program, shell])
    copy_files(tree, libraries([program, shell, *library.glob("lib-dynload/*.so")]))
    (tree / "bin").mkdir(exist_ok=True)
    (tree / "bin" / "sh").symlink_to(shell)
    for name in ("tmp", "root", "etc"):
        (tree / name).mkdir(exist_ok=True)
    return str(program)


def copy_files(tree: Path, files: Iterable[Path]) -> None:
    for file in files:
        target = _inside(tree, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)


def libraries(files: Iterable[Path]) -> Iterator[Path]:
    """What the dynamic loader will look for, under the names by which it does."""
    done = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, timeout=60, check=False)
    for path in sorted(set(re.findall(r"(/\S+) \(0x", done.stdout))):
        yield Path(path)


def _inside(tree: Path, path: Path) -> Path:
    return tree / path.relative_to("/")
