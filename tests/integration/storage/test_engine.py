from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from mags.host.storage import juicefs
from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from mags.host.storage.errors import StorageRefused, StorageUnavailable
from mags.host.storage.mount import HANDOVER
from mags.host.storage.s3 import S3
from mags.host.storage.seaweedfs import SeaweedFS
from tests.integration.storage.volumes import OpenEngine, until
from tests.kit.objectstore import bucket_of, cut


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
    left = Path(HANDOVER.format(min(engine.mount._processes())))
    assert left.is_socket()
    for pid in engine.mount._processes():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: engine.mount.remounts == 1)
    await until(lambda: reads(path))
    assert engine.mount.trouble == "" and not left.exists()


async def test_killed_supervisor_leaves_a_mount_that_works_and_can_be_unmounted(engine: Engine) -> None:
    path = await keep_file(engine)
    leader = min(engine.mount._processes())
    os.kill(leader, signal.SIGKILL)
    await asyncio.sleep(1.5)
    assert reads(path)
    await engine.close(unmount=True)
    assert not path.exists() and not Path(HANDOVER.format(leader)).exists()


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


def changed(settings: StorageSettings, **other: object) -> StorageSettings:
    return StorageSettings.model_validate({**settings.model_dump(), **other})


async def refused(settings: StorageSettings, place: Path, words: str, *, host_id: str = "h2") -> None:
    with pytest.raises(StorageRefused, match=words):
        await Engine.open(settings, place, host_id=host_id)


async def test_metadata_is_never_pointed_at_other_blocks(
    place: Path, open_engine: OpenEngine, s3_settings: StorageSettings
) -> None:
    """JuiceFS's own `format` would do it without a word: for every host, and its files would be gone."""
    local = StorageSettings(kind="local", volume=s3_settings.volume)
    engine = await open_engine(place, local)
    path = await keep_file(engine)
    await engine.close(unmount=True)
    before = await juicefs.look(engine.volume)
    words = r"of volume .* with its blocks in .*/blocks/, and not .* Nothing was changed\. Put MAGS_HOST_STORAGE_KIND"
    await refused(s3_settings, place, words, host_id="h1")
    await refused(changed(local, blocks_dir=place / "elsewhere"), place, words, host_id="h1")
    assert not (place / "elsewhere").exists()
    client = S3(bucket_of(s3_settings))
    assert not await client.exists()
    await client.aclose()
    assert await juicefs.look(engine.volume) == before
    await open_engine(place, local)
    assert path.read_bytes() == b"kept"


async def test_one_host_with_a_wrong_bucket_changes_nothing_for_the_others(
    place: Path, open_engine: OpenEngine, s3_settings: StorageSettings
) -> None:
    settings = changed(s3_settings, meta_url=f"sqlite3://{place}/meta.db?_journal=WAL&_timeout=5000")
    engine = await open_engine(place / "one", settings)
    path = await keep_file(engine)
    before = await juicefs.look(engine.volume)
    wrong = changed(settings, bucket=f"{settings.bucket}-x")
    await refused(wrong, place / "two", f"and not of volume .*/{wrong.bucket} as the settings say")
    await refused(
        changed(settings, kind="local"), place / "two", "and not of volume .*/two/blocks/ as the settings say"
    )
    client = S3(bucket_of(wrong))
    assert not await client.exists()
    await client.aclose()
    assert await juicefs.look(engine.volume) == before
    assert path.read_bytes() == b"kept" and await engine.check() == ""
    two = await open_engine(place / "two", settings, host_id="h2")
    assert (two.mount.point / "file").read_bytes() == b"kept"


async def test_blocks_that_are_not_there_or_are_anothers_are_said(place: Path, open_engine: OpenEngine) -> None:
    """A disk that is not mounted, or an old copy of one."""
    engine = await open_engine(place)
    path = await keep_file(engine)
    name = place / "blocks" / "mags" / "juicefs_uuid"
    uuid = name.read_text()
    name.write_text("another")
    assert "of another volume than the metadata" in await engine.check()
    await engine.close(unmount=True)
    await refused(StorageSettings(kind="local"), place, "of another volume than the metadata", host_id="h1")
    name.unlink()
    with pytest.raises(StorageUnavailable, match=r"not in .*/blocks/: the store there is empty\. Mount the disk"):
        await Engine.open(StorageSettings(kind="local"), place, host_id="h1")
    assert not name.exists()
    name.write_text(uuid)
    await open_engine(place)
    assert path.read_bytes() == b"kept"


async def test_a_bucket_that_is_gone_is_not_made_again(
    place: Path, open_engine: OpenEngine, s3_settings: StorageSettings
) -> None:
    engine = await open_engine(place, s3_settings)
    await engine.close(unmount=True)
    client = S3(bucket_of(s3_settings))
    try:
        async for key in client.keys():
            await client.delete(key)
        with pytest.raises(StorageUnavailable, match="the store there is empty"):
            await Engine.open(s3_settings, place, host_id="h1")
        await client.delete("")
        with pytest.raises(StorageUnavailable, match=r"There is no bucket .* any more"):
            await Engine.open(s3_settings, place, host_id="h1")
        assert not await client.exists()
    finally:
        await client.aclose()


async def test_a_host_does_not_take_to_another_volume_by_itself(place: Path, open_engine: OpenEngine) -> None:
    engine = await open_engine(place / "one")
    path = await keep_file(engine)
    await engine.close(unmount=True)
    other = StorageSettings.model_validate({"kind": "local", "meta_url": f"sqlite3://{place}/other.db"})
    (place / "other.db").touch()
    with pytest.raises(StorageUnavailable, match=r"knows no volume\. Nothing was changed\. Put MAGS_HOST_STORAGE_META"):
        await Engine.open(other, place / "one", host_id="h1")
    await open_engine(place / "two", changed(other, blocks_dir=place / "blocks"), host_id="h2")
    await refused(other, place / "one", "This host's workspaces are in the volume in .*/one/blocks/, but", host_id="h1")
    await open_engine(place / "one")
    assert path.read_bytes() == b"kept"


async def test_a_data_directory_may_be_moved(place: Path, open_engine: OpenEngine) -> None:
    engine = await open_engine(place / "old")
    await keep_file(engine)
    await engine.close(unmount=True)
    (place / "old").rename(place / "new")
    moved = await open_engine(place / "new")
    assert (moved.mount.point / "file").read_bytes() == b"kept"
    (moved.mount.point / "more").write_bytes(b"more")
    await moved.collect()
    assert not (place / "old").exists() and await moved.check() == ""


async def test_hosts_that_start_at_once_make_one_volume(
    place: Path, open_engine: OpenEngine, s3_settings: StorageSettings
) -> None:
    settings = changed(s3_settings, meta_url=f"sqlite3://{place}/meta.db?_journal=WAL&_timeout=5000")

    async def opened(host_id: str) -> Engine:
        while True:
            try:
                return await open_engine(place / host_id, settings, host_id=host_id)
            except StorageUnavailable:
                await asyncio.sleep(0.1)

    one, two = await asyncio.gather(opened("h1"), opened("h2"))
    await keep_file(one)
    assert (two.mount.point / "file").read_bytes() == b"kept"
    assert [await one.check(), await two.check()] == ["", ""]


async def test_another_key_is_in_force_from_the_next_start_on(place: Path, open_engine: OpenEngine) -> None:
    """Also for a mount that was left, and for a volume whose metadata has a key."""
    server = SeaweedFS(place / "weed")
    await server.start()
    try:
        keys = {"access_key": server.access_key, "secret_key": server.secret_key}
        first = StorageSettings.model_validate(
            {"kind": "s3", "endpoint": server.endpoint, "volume": "keys", "bucket": "keys", **keys}
        )
        made = juicefs.Volume(first, place / "host")
        made.directory.mkdir()
        client = S3(bucket_of(first))
        await client.create()
        await client.aclose()
        argv = ["format", made.meta, "keys", "--trash-days", "0", "--storage", "s3", "--bucket", made.bucket]
        await juicefs.command(made, [*argv, "--access-key", server.access_key, "--secret-key", server.secret_key],
                              timeout=60)  # fmt: skip
        engine = await Engine.open(first, place / "host", host_id="h1")
        await keep_file(engine)
        found = await juicefs.look(engine.volume)
        assert found is not None and found.access_key == ""
        assert server.secret_key.encode() not in (place / "host" / "meta.db").read_bytes()
        await engine.close(unmount=False)

        await cut(server)
        state = place / "weed" / "mags.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "access_key": "new", "secret_key": "hush"}))
        server = SeaweedFS(place / "weed")
        await server.start()
        await refused(first, place / "host", "may not do this", host_id="h1")
        again = await open_engine(place / "host", changed(first, access_key="new", secret_key="hush"))
        (again.mount.point / "more").write_bytes(b"kept")
        assert reads(again.mount.point / "file") and reads(again.mount.point / "more")
        await again.collect()
        for pid in again.mount._processes():
            assert b"hush" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    finally:
        await cut(server)


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
