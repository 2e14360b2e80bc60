"""Files: uploaded for scripts, and in VMs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mags.control.lifecycles import uploads
from mags.control.lifecycles.uploads import BUCKET
from tests.integration.control.conftest import Installation, alone, client

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_upload_is_kept_and_handed_to_the_host(mags: Installation) -> None:
    host = await mags.host()
    data = os.urandom(3_000_000)
    made = await mags.api.post("/mags-files", files={"file": ("dir/data.bin", data)})
    assert made.status_code == 201, made.text
    body = made.json()
    assert (body["name"], body["size"]) == ("data.bin", len(data))
    assert body["sha256"] == hashlib.sha256(data).hexdigest()
    store = await mags.nats.jetstream().object_store(BUCKET)
    assert (await store.get(body["file_id"])).data == data, "a host can read it"
    await mags.run("true", file_ids=[body["file_id"]])
    start = next(wish for verb, wish in reversed(host.calls) if verb == "start")
    assert [(file.file_id, file.name, file.size) for file in start.script.files] == [
        (body["file_id"], "data.bin", len(data))
    ]


async def test_uploads_are_their_owners(mags: Installation) -> None:
    body = (await mags.api.post("/mags-files", files={"file": ("a", b"")})).json()
    assert body["size"] == 0
    assert body["file_id"] in [row["file_id"] for row in (await mags.api.get("/mags-files")).json()["files"]]
    assert (await mags.stranger.get("/mags-files")).json()["total"] == 0
    assert (await mags.stranger.delete(f"/mags-files/{body['file_id']}")).status_code == 404
    answer = await mags.stranger.post("/mags-jobs", json={"script": "true", "file_ids": [body["file_id"]]})
    assert answer.status_code in (422, 503)
    assert (await mags.api.delete(f"/mags-files/{body['file_id']}")).status_code == 200
    assert (await mags.api.delete(f"/mags-files/{body['file_id']}")).status_code == 404


async def test_an_idempotent_upload_is_one_file(mags: Installation) -> None:
    headers = {"Idempotency-Key": "upload-1"}
    first = await mags.api.post("/mags-files", files={"file": ("once", b"same")}, headers=headers)
    second = await mags.api.post("/mags-files", files={"file": ("once", b"same")}, headers=headers)
    assert first.json() == second.json()
    other = await mags.api.post("/mags-files", files={"file": ("once", b"other")}, headers=headers)
    assert other.status_code == 409


async def test_a_wrong_upload_is_refused(mags: Installation) -> None:
    for name in ("..", "a/", "x" * 300):
        answer = await mags.api.post("/mags-files", files={"file": (name, b"x")})
        assert answer.status_code in (400, 422), name
    assert (await mags.api.post("/mags-files", data={"file": "text"})).status_code in (400, 422)
    assert (await mags.api.post("/mags-files", content=b"x")).status_code in (400, 422)
    async with client(mags.url, "") as nobody:
        assert (await nobody.post("/mags-files", files={"file": ("a", b"x")})).status_code == 401


async def test_a_file_that_is_too_large_is_refused(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url, max_file_bytes=1000) as mags:
        answer = await mags.api.post("/mags-files", files={"file": ("a", b"x" * 1001)})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        answer = await mags.api.post("/mags-files", files={"file": ("a", b"x" * 3_000_000)})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert (await mags.api.get("/mags-files")).json()["total"] == 0


async def test_bytes_that_are_nobodys_are_swept(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash between the bytes and their record."""
    async with alone(tmp_path, database_url=database_url) as mags:
        kept = (await mags.api.post("/mags-files", files={"file": ("a", b"kept")})).json()["file_id"]
        store = await mags.nats.jetstream().object_store(BUCKET)
        await store.put("lost", b"nobody's")
        await uploads.sweep(mags.world)
        assert {info.name for info in await store.list(ignore_deletes=True)} == {kept, "lost"}, "it is too young"
        monkeypatch.setattr(uploads, "UNRECORDED", timedelta(hours=-1))
        await uploads.sweep(mags.world)
        assert {info.name for info in await store.list(ignore_deletes=True)} == {kept}
        assert (await store.get(kept)).data == b"kept"
        await mags.api.delete(f"/mags-files/{kept}")
        await uploads.sweep(mags.world)  # nothing is left


async def chunks(mags: Installation) -> int:
    """How many there are in the object store, of whole files and of others."""
    found = await mags.nats.jetstream().stream_info(uploads.STREAM, subjects_filter=uploads.CHUNKS.format(">"))
    return sum((found.state.subjects or {}).values())


class Slow(io.BytesIO):
    """A file that is still being read when its upload is cut off: from the second chunk on it waits."""

    def __init__(self) -> None:
        super().__init__(bytes(1 << 20))
        self.stored, self.go_on = threading.Event(), threading.Event()

    def readinto(self, buffer: Any) -> int:
        if self.tell():
            self.stored.set()
            self.go_on.wait(60)
        return super().readinto(buffer)


async def test_an_upload_that_is_cut_off_leaves_nothing(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        file = Slow()
        putting = asyncio.create_task(uploads.put(mags.world, "cut", file))
        await asyncio.to_thread(file.stored.wait, 60)
        assert await chunks(mags) == 1
        putting.cancel()
        await asyncio.sleep(0)
        file.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert await chunks(mags) == 0


async def test_chunks_of_an_upload_that_died_with_its_control_are_swept(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        await mags.nats.jetstream().publish(uploads.CHUNKS.format("dead"), b"x")
        await uploads.sweep(mags.world)
        assert await chunks(mags) == 1, "it may still be under way"
        monkeypatch.setattr(uploads, "UNRECORDED", timedelta(hours=-1))
        await uploads.sweep(mags.world)  # with no whole file beside it
        assert await chunks(mags) == 0
        monkeypatch.undo()
        kept = (await mags.api.post("/mags-files", files={"file": ("a", b"kept")})).json()["file_id"]
        await mags.nats.jetstream().publish(uploads.CHUNKS.format("dead"), b"x")
        monkeypatch.setattr(uploads, "UNRECORDED", timedelta(hours=-1))
        await uploads.sweep(mags.world)
        store = await mags.nats.jetstream().object_store(BUCKET)
        assert await chunks(mags) == 1 and (await store.get(kept)).data == b"kept"


async def test_all_files_together_are_bounded(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url, max_uploaded_bytes=1000) as mags:
        first = (await mags.api.post("/mags-files", files={"file": ("a", b"x" * 600)})).json()
        answer = await mags.api.post("/mags-files", files={"file": ("b", b"x" * 600)})
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert (await mags.stranger.post("/mags-files", files={"file": ("b", b"x" * 600)})).status_code == 201
        await mags.api.delete(f"/mags-files/{first['file_id']}")
        assert (await mags.api.post("/mags-files", files={"file": ("b", b"x" * 600)})).status_code == 201


async def home_of(mags: Installation, name: str) -> Path:
    """The directory that stands for a VM's /root."""
    return mags.folder / "hosts" / "h1" / str((await mags.status(name))["vm_id"])


async def test_a_file_that_grows_is_read_as_it_was_opened(mags: Installation) -> None:
    await mags.host()
    await mags.submit("sleep infinity", persistent=True, name="growing")
    await mags.reaches("growing", "running")
    log = await home_of(mags, "growing") / "log"
    log.write_bytes(bytes(4_000_000))
    async with mags.api.stream("GET", "/mags-jobs/growing/files", params={"path": "log"}) as answer:
        with log.open("ab") as file:  # the window is smaller than the file: it is still being read
            file.write(b"more" * 1000)
        size = sum([len(chunk) async for chunk in answer.aiter_bytes()])
    assert size == int(answer.headers["content-length"]) == 4_000_000


async def test_a_file_in_a_vm_is_written_read_listed_and_removed(mags: Installation) -> None:
    await mags.host()
    await mags.submit("sleep infinity", persistent=True, name="files")
    await mags.reaches("files", "running")
    base = "/mags-jobs/files/files"
    data = os.urandom(5_000_000)
    written = await mags.api.put(base, params={"path": "sub/run.sh", "mode": "755"}, content=data)
    assert written.status_code == 200 and written.json() == {"path": "/root/sub/run.sh", "size": len(data)}
    read = await mags.api.get(base, params={"path": "/root/sub/run.sh"})
    assert read.content == data
    assert (read.headers["content-length"], read.headers["x-mags-mode"]) == (str(len(data)), "755")
    listed = (await mags.api.get(f"{base}/list", params={"path": "/root/sub"})).json()
    assert [(entry["name"], entry["size"], entry["mode"]) for entry in listed["entries"]] == [
        ("run.sh", len(data), "755")
    ]
    assert (await mags.api.delete(base, params={"path": "/root/sub", "recursive": "true"})).status_code == 200
    answer = await mags.api.get(base, params={"path": "/root/sub/run.sh"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await mags.api.put(base, params={"path": "empty"}, content=b"")).json()["size"] == 0
    assert (await mags.api.get(base, params={"path": "~/empty"})).content == b""
    (await home_of(mags, "files") / "version").symlink_to("/proc/version")
    read = await mags.api.get(base, params={"path": "version"})
    assert read.content == Path("/proc/version").read_bytes(), "it says that it has no bytes"
    for query in ({}, {"path": ""}, {"path": "x", "mode": "999"}):
        assert (await mags.api.put(base, params=query, content=b"")).status_code == 422
