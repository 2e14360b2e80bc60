"""The addresses of uploaded files."""

from __future__ import annotations

import asyncio
import hashlib
from typing import IO, Any

from fastapi import APIRouter, Request
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import UploadFile
from starlette.responses import Response

from mags.control import errors
from mags.control.db import now_ms
from mags.control.http import Json, Reader, Reference, TheWorld, View, Writer
from mags.control.http.bodies import check_text
from mags.control.http.context import IdempotencyKey
from mags.control.http.times import moment
from mags.control.lifecycles import uploads
from mags.control.lifecycles.world import World
from mags.control.models import File as FileRecord
from mags.control.records.accounts import Caller
from mags.control.records.idempotency import Earlier, exactly_once, once
from mags.control.records.limits import check_bytes
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id

router = APIRouter(prefix="/mags-files", tags=["files"])

CHUNK = 1 << 20


class NewFile(View):
    file_id: str
    name: str
    size: int
    sha256: str


class FileView(NewFile):
    created_at: str


class FileList(View):
    files: list[FileView]
    total: int


class Removed(View):
    success: bool
    file_id: str


def _view(file: FileRecord) -> dict[str, Any]:
    return {
        "file_id": file.id,
        "name": file.name,
        "size": file.size,
        "sha256": file.sha256,
        "created_at": moment(file.created_ms),
    }


def check_name(name: str | None) -> str:
    """The last part of the name that the client gave; it becomes a name in /root."""
    last = (name or "").replace("\\", "/").rpartition("/")[2].strip()
    try:
        check_text(last)
    except ValueError as error:
        raise errors.invalid("file", f"Its name is wrong: {error}.") from error
    if last in ("", ".", "..") or len(last.encode()) > 255:
        raise errors.invalid("file", "Give it a name of 1 to 255 bytes.")
    return last


_MULTIPART = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        }
    },
}


@router.post(
    "",
    status_code=201,
    response_model=NewFile,
    summary="Upload a file for scripts",
    openapi_extra={"requestBody": _MULTIPART},
)
async def upload(request: Request, world: TheWorld, caller: Writer, key: IdempotencyKey = None) -> Response:
    """The body is read only now that the caller is known."""
    async with request.form(max_files=1, max_fields=8) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise errors.invalid("file", "Send it as multipart/form-data, in the field 'file'.")
        return await _keep(world, caller, file, key)


async def _keep(world: World, caller: Caller, file: UploadFile, key: str | None) -> Response:
    name = check_name(file.filename)
    size, digest = await asyncio.to_thread(_measure, file.file, world.settings.max_file_bytes)
    file_id = new_id()
    request = once(key, "POST /mags-files", name, digest)
    limit = world.settings.max_uploaded_bytes
    async with world.db.read() as session:
        await check_bytes(session, caller.user_id, size, limit)
    await uploads.put(world, file_id, file.file)

    async def make(session: AsyncSession) -> Earlier:
        await check_bytes(session, caller.user_id, size, limit)  # others may have come meanwhile
        await session.execute(
            insert(FileRecord).values(
                id=file_id, owner_id=caller.user_id, name=name, size=size, sha256=digest, created_ms=now_ms()
            )
        )
        return Earlier(201, {"file_id": file_id, "name": name, "size": size, "sha256": digest})

    try:
        answer, made = await exactly_once(world.db, caller.user_id, request, make)
    except BaseException:
        world.spawn(uploads.remove(world, file_id), f"unstore-{file_id}")
        raise
    if not made:
        await uploads.remove(world, file_id)
    return Json(answer.body, status_code=answer.status)


def _measure(source: IO[bytes], limit: int) -> tuple[int, str]:
    """Size and SHA-256; the position is at the beginning again afterwards."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if size > limit:
            raise Problem("too_large", f"A file may have at most {limit} bytes.", max_bytes=limit)
        digest.update(chunk)
    source.seek(0)
    return size, digest.hexdigest()


@router.get("", response_model=FileList, summary="List uploaded files")
async def list_files(world: TheWorld, caller: Reader) -> Response:
    async with world.db.read() as session:
        rows = (
            await session.execute(
                select(FileRecord)
                .where(FileRecord.owner_id == caller.user_id)
                .order_by(FileRecord.created_ms.desc(), FileRecord.id)
            )
        ).scalars().all()  # fmt: skip
    return Json({"files": [_view(row) for row in rows], "total": len(rows)})


@router.delete("/{id}", response_model=Removed, summary="Remove an uploaded file")
async def remove(world: TheWorld, caller: Writer, id: Reference) -> Response:
    async with world.db.write() as session:
        found = await session.execute(
            delete(FileRecord).where(FileRecord.id == id, FileRecord.owner_id == caller.user_id)
        )
    if not found.rowcount:  # type: ignore[attr-defined]
        raise errors.not_found("file", id)
    await uploads.remove(world, id)
    return Json({"success": True, "file_id": id})
