"""Images made for real: Alpine with packages from a mirror that we serve, and somebody's own layers, booted."""

from __future__ import annotations

import asyncio
import base64
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mags.host.images import ImageError, ImageInvalid, ImageStore, agent_path, firmware, wheel
from mags.host.images.build import build_alpine, build_debian, import_image
from mags.host.vmm.spec import VmSpec
from mags.kit.process import run
from tests.kit import vms
from tests.kit.mirror import PACKAGE, WHEEL, make_repository, make_wheel
from tests.unit.host.images.archives import directory, member, symlink, tar
from tests.unit.host.images.test_layout import Layout

pytestmark = pytest.mark.vm


def link_or_copy(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:  # on another file system
        shutil.copy2(source, target)


@pytest.fixture
def store(images: ImageStore, tmp_path: Path) -> ImageStore:
    """A cache of its own that need not fetch the wheel again."""
    (tmp_path / "cache").mkdir()
    for name in ("downloads", "kernel", "blank"):
        shutil.copytree(images.cache / name, tmp_path / "cache" / name, copy_function=link_or_copy)
    return ImageStore(tmp_path / "cache", agent_path())


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory and the URL that serves it."""
    root = tmp_path / "site"
    root.mkdir()
    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


async def file_in(image: Path, name: str) -> bytes:
    return (await run(["debugfs", "-R", f"cat {name}", image], timeout=60)).stdout


async def test_alpine_gets_the_packages_that_a_mirror_has(
    store: ImageStore, site: tuple[Path, str], tmp_path: Path
) -> None:
    keys = await make_repository(store, tmp_path / "mirror", site[0])
    said: list[str] = []
    image = await build_alpine(
        store, packages=[PACKAGE, "nosuch", "busybox"], repositories=[site[1]], keys=keys, progress=said.append
    )
    assert (image.packages, image.missing) == ((PACKAGE, "busybox"), ("nosuch",))
    assert any("mirror does not have all: the image lacks nosuch." in line for line in said)
    rootfs = store.path(image)
    assert await file_in(rootfs, f"/usr/bin/{PACKAGE}") == b"#!/bin/sh\necho from the package\n"
    assert await file_in(rootfs, "/etc/resolv.conf") == b""
    await run(["fsck.ext4", "-fn", rootfs], timeout=60)


async def test_an_unsigned_mirror_is_not_used(store: ImageStore, site: tuple[Path, str], tmp_path: Path) -> None:
    await make_repository(store, tmp_path / "mirror", site[0])
    image = await build_alpine(store, packages=[PACKAGE], repositories=[site[1]])
    assert image.missing == (PACKAGE,)


async def test_alpine_is_built_where_no_mirror_answers(store: ImageStore) -> None:
    said: list[str] = []
    image = await build_alpine(
        store, packages=["python3", "curl"], repositories=["http://127.0.0.1:9/nothing"], progress=said.append
    )
    assert (image.packages, image.missing) == (("curl",), ("python3",))
    (note,) = [line for line in said if "lacks" in line]
    assert "No package mirror answered: the image lacks python3." in note and "mags image build debian" in note


async def test_debian_says_why_it_cannot_be_built(store: ImageStore) -> None:
    with pytest.raises(ImageError, match=r"Failed to fetch http://127\.0\.0\.1:9/.*Connection refused"):
        await build_debian(store, mirrors=["deb http://127.0.0.1:9/debian bookworm main"])
    assert store.list() == []


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_debian_has_its_tools_and_pip_installs(store: ImageStore, tmp_path: Path) -> None:
    """From Debian's mirror, as a user builds it."""
    image = await build_debian(store)
    assert (store.find("debian"), image.missing) == (image, ())
    make_wheel(tmp_path)
    wheel = base64.b64encode((tmp_path / WHEEL).read_bytes()).decode()
    install = f"cd /tmp && echo {wheel} | base64 -d >{WHEEL} && pip install -q --no-index ./{WHEEL} 2>&1"
    vmm = await vms.open_vmm(store, tmp_path / "state")
    spec = VmSpec("debian", vcpus=1, memory_mb=512, disk_gb=2)
    async with vms.cloned(vmm, tmp_path, spec=spec) as vm, vms.running(vm) as world:
        for script, wanted in (
            ("python3 -c 'print(6 * 7)'", "42"),
            ("node -e 'console.log(6 * 7)'", "42"),
            ("npm --version", ""),
            ("git init -q /tmp/r && git -C /tmp/r status --short --branch", "## No commits yet on master"),
            ("curl --version | head -c 5; wget --version | head -c 9", "curl GNU Wget"),
            (install, ""),
            (PACKAGE, "from the wheel"),
        ):
            ended, output = await world.run(script)
            assert ended.code == 0 and wanted in output, f"{script}: {ended}, {output}"


async def test_a_wheel_with_another_hash_is_refused_and_removed(store: ImageStore) -> None:
    path = store.cache / "downloads" / wheel.pin().filename
    path.unlink()
    path.write_bytes(b"something else")
    with pytest.raises(ImageInvalid, match="hash differs"):
        await build_alpine(store)
    assert not path.exists()
    assert store.list() == []


async def test_somebodys_layers_become_an_image_that_boots(store: ImageStore, tmp_path: Path) -> None:
    scratch = tmp_path / "parts"
    scratch.mkdir()
    tree = await firmware.root_tree(store.cache, scratch)
    loader = "lib/ld-musl-x86_64.so.1"
    lower = tar(
        directory("bin"),
        member("bin/busybox", (tree / "bin/busybox").read_bytes(), mode=0o755),
        symlink("bin/sh", "/bin/busybox"),
        symlink("bin/cat", "busybox"),
        member(loader, (tree / loader).read_bytes(), mode=0o755),
        member("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        member("greeting", b"from below"),
        mode="w:gz",
    )
    upper = tar(member(".wh.greeting", b""), member("greetings", b"from above\n"))
    oci = Layout(tmp_path / "oci")
    oci.index(oci.document({"layers": [oci.blob(lower), oci.blob(upper)]}))
    await import_image(store, "theirs", oci.path)
    spec = VmSpec("theirs", vcpus=1, memory_mb=256, disk_gb=1)
    vmm = await vms.open_vmm(store, tmp_path / "state")
    async with vms.cloned(vmm, tmp_path, spec=spec) as vm, vms.running(vm) as world:
        ended, output = await world.run("cat /greetings; test ! -e /greeting")
    assert (ended.code, output) == (0, "from above\n")


async def test_an_archive_without_a_shell_is_no_image(store: ImageStore, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(tar(member("etc/passwd", b"root")))
    with pytest.raises(ImageInvalid, match="no /bin/sh"):
        await import_image(store, "bare", archive)
    with pytest.raises(ImageInvalid, match="neither"):
        await import_image(store, "bare", tmp_path / "missing")
    assert store.list() == []


async def test_an_image_from_a_plain_archive(store: ImageStore, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar.gz"
    archive.write_bytes(tar(member("bin/sh", b"#!", mode=0o755), directory("usr"), mode="w:gz"))
    said: list[str] = []
    first, second = await asyncio.gather(
        import_image(store, "plain", archive, progress=said.append), import_image(store, "plain", archive)
    )
    assert store.find("plain") in (first, second)
    assert said == ["Unpacking", "Making the file system"]
    assert await file_in(store.path(store.find("plain")), "/bin/sh") == b"#!"
