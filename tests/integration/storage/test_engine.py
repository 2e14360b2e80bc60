from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from mags.host.storage.errors import StorageRefused, StorageUnavailable
from mags.host.storage.s3 import S3
from tests.integration.storage.volumes import OpenEngine, until
from tests.kit.objectstore import bucket_of


def reads(path: Path) -> bool:
    try:
        return path.read_bytes() == b"kept"
    except OSError:
        return False


async def keep_file(engine: Engine) -> Path:
    path = engine.mount.point / "file"
    path.write_bytes(b"kept")
    return path


async def test_a_volume_is_made_once_and_found_again(place: Path, open_engine: OpenEngine) -> None:
    engine = await open_engine(place)
    assert engine.status == "ok" and await engine.check() == ""
    path = await keep_file(engine)
    await engine.close(unmount=True)
    assert not path.exists()
    await open_engine(place)
    assert path.read_bytes() == b"kept"


async def test_the_mount_outlives_the_program_and_is_taken_over(place: Path, open_engine: OpenEngine) -> None:
    engine = await Engine.open(StorageSettings(kind="local"), place, host_id="h1")
    path = await keep_file(engine)
    before = engine.mount._processes()
    with path.open("rb") as file:
        await engine.close(unmount=False)
        again = await open_engine(place)
        assert file.read() == b"kept"
    assert again.mount._processes() == before and before


async def test_killed_worker_is_replaced_and_open_files_stay_readable(engine: Engine) -> None:
    path = await keep_file(engine)
    leader, worker = sorted(engine.mount._processes())
    with path.open("rb") as file:
        os.kill(worker, signal.SIGKILL)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        await until(lambda: len(engine.mount._processes()) == 2 and worker not in engine.mount._processes())
        assert await asyncio.to_thread(os.pread, file.fileno(), 10, 0) == b"kept"
    assert engine.mount.remounts == 0 and os.getpgid(leader) == leader


async def test_mount_whose_processes_are_all_killed_is_made_anew(place: Path, open_engine: OpenEngine) -> None:
    engine = await open_engine(place)
    path = await keep_file(engine)
    for pid in engine.mount._processes():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: engine.mount.remounts == 1)
    await until(lambda: reads(path))
    assert engine.mount.trouble == ""


async def test_killed_supervisor_leaves_a_mount_that_works_and_can_be_unmounted(engine: Engine) -> None:
    path = await keep_file(engine)
    leader = min(engine.mount._processes())
    os.kill(leader, signal.SIGKILL)
    await asyncio.sleep(1.5)
    assert reads(path)
    await engine.close(unmount=True)
    assert not path.exists()


async def test_blocks_are_in_s3_when_a_file_is_closed(
    place: Path, open_engine: OpenEngine, s3_settings: StorageSettings
) -> None:
    engine = await open_engine(place, s3_settings)
    (engine.mount.point / "big").write_bytes(os.urandom(5 << 20))
    client = S3(bucket_of(s3_settings))
    names = [name async for name in client.keys(f"{s3_settings.volume}/chunks/")]
    await client.aclose()
    assert len(names) == 2
    assert not [name for name in os.environ if "SECRET" in name]
    for pid in engine.mount._processes():
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert s3_settings.secret_key.get_secret_value().encode() not in words


async def test_wrong_key_is_an_error_at_the_start(place: Path, s3_settings: StorageSettings) -> None:
    wrong = s3_settings.model_copy(update={"secret_key": StorageSettings(secret_key="wrong").secret_key})
    with pytest.raises(StorageRefused, match=r"403 .* may not do this\. Check MAGS_HOST_STORAGE_ACCESS_KEY"):
        await Engine.open(wrong, place, host_id="h1")


async def test_unreachable_object_store_is_an_error_that_may_pass(place: Path, s3_settings: StorageSettings) -> None:
    nowhere = s3_settings.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    with pytest.raises(StorageUnavailable, match="does not answer"):
        await Engine.open(nowhere, place, host_id="h1")


async def test_metadata_of_another_volume_is_refused(place: Path, open_engine: OpenEngine) -> None:
    await open_engine(place)
    other = StorageSettings(kind="local", volume="other", meta_url=f"sqlite3://{place}/meta.db")
    with pytest.raises(StorageRefused, match="MAGS_HOST_STORAGE_META_URL"):
        await Engine.open(other, place / "second", host_id="h2")


async def test_garbage_is_not_collected_after_the_clock_was_set(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moved: list[float] = [0.0]
    collected: list[float] = []
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + moved[0])
    settings = StorageSettings(kind="local", collect_interval_s=0.2)
    engine = await Engine.open(settings, place, host_id="h1")

    async def collect() -> None:
        collected.append(moved[0])

    try:
        monkeypatch.setattr(engine, "collect", collect)
        async with asyncio.timeout(60):
            while not collected:
                await asyncio.sleep(0.01)
            moved[0] = 7200.0
            while collected[-1] != 7200.0:
                await asyncio.sleep(0.01)
        assert caplog.text.count("garbage is collected another time") == 1
    finally:
        await engine.close(unmount=True)
