"""Packages that tests install: a signed repository for apk, and a wheel for pip."""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

from mags.host.images import ImageStore, firmware
from mags.host.images.alpine import confined
from mags.kit.process import run

PACKAGE = "hello-mags"
"""Of both kinds: a program that says where it is from."""
KEY = "test.rsa.pub"
WHEEL = "hello_mags-1.0-py3-none-any.whl"


async def make_repository(store: ImageStore, scratch: Path, site: Path) -> Path:
    """In `site`, what apk takes as a repository: a package and an index, signed as Alpine's are. The directory of the
    public key (in `scratch`, which is made)."""
    scratch.mkdir()
    tree = await firmware.root_tree(store.cache, scratch)
    keys = scratch / "keys"
    keys.mkdir()
    work = tree / "b"
    (work / "files/usr/bin").mkdir(parents=True)
    (work / "files/usr/bin" / PACKAGE).write_text("#!/bin/sh\necho from the package\n")
    (work / "files/usr/bin" / PACKAGE).chmod(0o755)
    await run(["openssl", "genrsa", "-out", work / "key.rsa", "2048"], timeout=60)
    await run(["openssl", "rsa", "-in", work / "key.rsa", "-pubout", "-out", keys / KEY], timeout=60)
    facts = [f"name:{PACKAGE}", "version:1.0-r0", "arch:x86_64", "description:for a test"]
    made = f"/b/{PACKAGE}-1.0-r0.apk"
    words = [word for fact in facts for word in ("--info", fact)]
    signed = ["--sign-key", "/b/key.rsa"]
    await run(confined(tree, "mkpkg", *words, "--files", "/b/files", "--output", made, *signed), timeout=60)
    index = ["mkndx", "--allow-untrusted", "--output", "/b/APKINDEX.tar.gz", *signed, made]
    await run(confined(tree, *index), timeout=60)
    (site / "x86_64").mkdir()
    for path in work.glob("*[kz]"):
        shutil.copy(path, site / "x86_64")
    shutil.rmtree(tree)
    return keys


def make_wheel(site: Path) -> None:
    """In `site`, a wheel with a module and a command (PEP 427)."""
    info = "hello_mags-1.0.dist-info"
    files = {
        "hello_mags.py": "def main() -> None:\n    print('from the wheel')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{PACKAGE} = hello_mags:main\n",
    }
    record = [f"{name},sha256={_digest(text)},{len(text)}" for name, text in files.items()] + [f"{info}/RECORD,,"]
    with zipfile.ZipFile(site / WHEEL, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "\n".join(record) + "\n")


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
