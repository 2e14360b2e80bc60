"""A second mount of a station's volume, as on a host that has nothing of it: no block is cached there."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from mags.host.storage import copies
from mags.host.storage.config import StorageSettings
from mags.host.storage.juicefs import Volume
from mags.host.storage.layout import WORKSPACES, generation_name
from mags.host.storage.mount import Mount
from mags.protocol.ids import new_id
from tests.vm.storage.station import Station

CHECK = """
cd "$1/upper/root/d" || exit 9
md5sum --quiet -c sums || exit 8
for f in "$1"/upper/root/w/[0-9]*; do
    [ "$(tail -n +2 "$f" | md5sum)" = "$(head -n 1 "$f")" ] || { echo "$f is torn"; exit 7; }
done
wc -l < sums
"""


class Elsewhere:
    def __init__(self, mount: Path, scratch: Path) -> None:
        self._mount, self._scratch = mount, scratch

    @contextmanager
    def held(self, workspace: str, generation: int) -> Iterator[Path]:
        """A generation, which stays for the time of the block even if it is dropped."""
        kept = self._mount / f"held-{new_id()}"
        kept.hardlink_to(self._mount / WORKSPACES / workspace / generation_name(generation))
        try:
            yield kept
        finally:
            kept.unlink()

    async def files(self, image: Path, *, died: bool) -> int:
        """How many files have a checksum; all of them are right, and the file system is whole.

        died: its VM had no chance to make it whole. As after a power cut, a mount replays the journal; that alone
        must do.
        """
        return await asyncio.to_thread(self._files, image, died)

    def _files(self, image: Path, died: bool) -> int:
        for cached in self._scratch.glob("cache/*/raw"):
            shutil.rmtree(cached, ignore_errors=True)  # JuiceFS changes it all the time
        copy = image.with_name(f"copy-{new_id()}")
        with copy.open("xb") as target:
            copies.clone(image, target.fileno())
        try:
            if not died:
                _whole(copy)
            with self._mounted(copy) as root:
                done = _run(["sh", "-c", CHECK, "sh", str(root)])
            assert done.returncode == 0, done.stdout
            _whole(copy)
            return int(done.stdout.split()[-1])
        finally:
            copy.unlink()

    @contextmanager
    def _mounted(self, image: Path) -> Iterator[Path]:
        point = self._scratch / new_id()
        point.mkdir()
        done = _run(["mount", "-o", "loop", str(image), str(point)])
        assert done.returncode == 0, done.stdout
        try:
            yield point
        finally:
            done = _run(["umount", str(point)])
            assert done.returncode == 0, done.stdout
            point.rmdir()


def _whole(image: Path) -> None:
    done = _run(["e2fsck", "-fn", str(image)])
    assert done.returncode == 0, done.stdout


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)


@asynccontextmanager
async def elsewhere(at: Station, place: Path) -> AsyncIterator[Elsewhere]:
    there, here = at.host.data / "host" / "storage", place / "elsewhere"
    settings: dict[str, object] = {"meta_url": f"sqlite3://{there}/meta.db?_journal=WAL&_timeout=5000"}
    if at.store is None:
        settings |= {"kind": "local", "blocks_dir": there / "blocks"}
    else:
        settings |= {
            "kind": "s3", "endpoint": at.store.endpoint,
            "access_key": at.store.access_key, "secret_key": at.store.secret_key,
        }  # fmt: skip
    here.mkdir()
    await at.storage_says("ok")
    mount = Mount(Volume(StorageSettings.model_validate(settings), here), here / "mnt")
    await mount.start()
    try:
        yield Elsewhere(mount.point, here)
    finally:
        await mount.stop()
