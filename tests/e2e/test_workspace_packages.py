"""Packages that are installed in one run are there in the next, in another VM: apk's and pip's, from a server that the
test has beside the host; dpkg's and npm's, from files."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mags.host.images import ImageStore
from mags.host.images.firmware import agent_path
from tests.kit import machine_image, python_image
from tests.kit.cache import CACHE
from tests.kit.installation import Installation
from tests.kit.mirror import KEY, PACKAGE, make_repository, make_wheel
from tests.kit.neighbour import neighbour

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a repository and a wheel."""
    folder = tmp_path_factory.mktemp("packages")
    files = folder / "site"
    files.mkdir()
    keys = asyncio.run(make_repository(ImageStore(CACHE, agent_path()), folder / "scratch", files))
    (keys / KEY).rename(files / KEY)
    make_wheel(files)
    with neighbour(files) as url:
        yield url


def test_what_apk_adds_is_there_in_the_next_vm(mags: Installation, site: str) -> None:
    mags.out(
        "run",
        "-w",
        "apk",
        f"""
set -e
wget -q -O /etc/apk/keys/{KEY} {site}/{KEY}
echo {site} > /etc/apk/repositories
apk add --no-cache {PACKAGE}
""",
    )
    mags.cli("stop", "apk")
    out = mags.out("run", "-w", "apk", f"{PACKAGE}; apk info -e {PACKAGE}; apk info -L {PACKAGE} | grep bin")
    assert out == f"from the package\n{PACKAGE}\nusr/bin/{PACKAGE}\n"
    assert mags.json("status", "apk")["start_kind"] in ("clone", "cold")
    mags.out("run", "-w", "apk", f"apk del {PACKAGE}")
    mags.cli("stop", "apk")
    assert mags.out("run", "-w", "apk", f"command -v {PACKAGE} || echo none") == "none\n"


def test_what_pip_installs_is_there_in_the_next_vm(mags: Installation, site: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    python = python_image.make_tree(tree)
    archive = tmp_path / "root.tar"
    subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True, timeout=120)
    mags.cli("image", "import", python_image.NAME, str(archive))
    try:
        host = site.removeprefix("http://").partition(":")[0]
        install = f"{python} -m pip install --no-index --find-links {site}/ --trusted-host {host} {PACKAGE}"
        said = mags.out("run", "-w", "pip", "--image", python_image.NAME, install)
        assert f"Successfully installed {PACKAGE}-1.0" in said
        mags.cli("stop", "pip")
        # The image goes with the workspace.
        assert mags.out("run", "-w", "pip", f"{python} -c 'import hello_mags; hello_mags.main()'") == "from the wheel\n"
        assert mags.json("workspace", "show", "pip")["image"] == python_image.NAME
        refused = mags.cli("run", "-w", "pip", "--image", "alpine", "true", check=False)
        assert refused.returncode != 0 and python_image.NAME.encode() in refused.stderr
        mags.cli("stop", "pip")
        mags.cli("workspace", "delete", "--yes", "pip")
    finally:
        mags.cli("image", "remove", python_image.NAME)


@contextmanager
def image(mags: Installation, name: str, tree: Path, tmp_path: Path) -> Iterator[None]:
    archive = tmp_path / "root.tar"
    subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True, timeout=300)
    mags.cli("image", "import", name, str(archive), timeout=600)
    archive.unlink()
    try:
        yield
    finally:
        mags.cli("image", "remove", name)


def test_what_dpkg_installs_is_there_in_the_next_vm(mags: Installation, tmp_path: Path) -> None:
    tree, name = tmp_path / "tree", "test-dpkg"
    machine_image.make_dpkg_tree(tree, tmp_path / "scratch")
    with image(mags, name, tree, tmp_path):
        mags.out("run", "-w", "deb", "--image", name, f"dpkg -i {machine_image.DEB}")
        mags.cli("stop", "deb")
        out = mags.out("run", "-w", "deb", f"{PACKAGE}; dpkg -s {PACKAGE} | grep Status")
        assert out == "from the deb\nconfigured\nStatus: install ok installed\n"
        assert mags.json("status", "deb")["start_kind"] in ("clone", "cold")
        mags.out("run", "-w", "deb", f"dpkg -P {PACKAGE}")
        mags.cli("stop", "deb")
        out = mags.out("run", "-w", "deb", f"command -v {PACKAGE} || echo none; dpkg-query -W | grep -c . || true")
        assert out == "none\n0\n"
        mags.cli("stop", "deb")
        mags.cli("workspace", "delete", "--yes", "deb")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_what_npm_installs_is_there_in_the_next_vm(mags: Installation, tmp_path: Path) -> None:
    tree, name = tmp_path / "tree", "test-node"
    machine_image.make_node_tree(tree, tmp_path / "scratch")
    with image(mags, name, tree, tmp_path):
        install = f"npm install --offline --no-audit --no-fund -g --prefix /root/n {machine_image.TARBALL}"
        mags.cli("run", "-w", "npm", "--image", name, "--memory", "1024", install, timeout=600)
        mags.cli("stop", "npm")
        assert mags.out("run", "-w", "npm", f"/root/n/bin/{PACKAGE}") == "from the tarball\n"
        assert mags.json("status", "npm")["start_kind"] in ("clone", "cold")
        mags.cli("stop", "npm")
        mags.cli("workspace", "delete", "--yes", "npm")
