"""Files in a VM: raw bytes both ways, streamed, with their modes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from mags.control import errors
from mags.control.http.streams import Stream
from mags.control.http.times import moment
from mags.control.lifecycles.reaching import reach
from mags.control.lifecycles.world import World
from mags.control.records.accounts import Caller
from mags.hostclient import Session
from mags.protocol.ids import new_id
from mags.protocol.messages import Files, FilesResult, Open

HOME = "/root"
MODE_HEADER = "X-Mags-Mode"
LIST_TIMEOUT = 120.0


def absolute(path: str) -> str:
    """A path that does not begin with `/` is meant from the home directory."""
    if "\x00" in path:
        raise errors.invalid("path", "It may not contain the character U+0000.")
    if path in ("~", "~/"):
        return HOME
    path = path.removeprefix("~/") if path.startswith("~/") else path
    return path if path.startswith("/") else f"{HOME}/{path}"


def parse_mode(text: str | None) -> int | None:
    """Permissions in octal, such as 644."""
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 5 or any(digit in "89" for digit in text):
        raise errors.invalid("mode", "Give permissions in octal, such as 644.")
    return int(text, 8) & 0o7777


async def read(world: World, caller: Caller, reference: str, path: str) -> Stream:
    """The bytes of a file, as many as it has when it is opened. Problem (not_found, conflict for a directory) before
    the first of them."""
    reached = await reach(world, caller.user_id, reference)
    session = await reached.open(Open(vm_id=reached.vm.id, session_id=new_id(), kind="read", path=absolute(path)))
    headers = {}
    size = session.opened.size or None  # files of /proc say 0, whatever they hold
    if size is not None:
        headers["Content-Length"] = str(size)
    if session.opened.mode is not None:
        headers[MODE_HEADER] = f"{session.opened.mode & 0o7777:o}"
    return Stream(_bytes(session, size), media_type="application/octet-stream", headers=headers)


async def _bytes(session: Session, size: int | None = None) -> AsyncGenerator[bytes, None]:
    """`size`: a file that grows meanwhile is cut there."""
    left = size
    async with session:
        async for frame in session:
            yield frame.data if left is None else frame.data[:left]
            left = None if left is None else left - len(frame.data)
            if left is not None and left <= 0:
                return


async def write(
    world: World, caller: Caller, reference: str, path: str, body: AsyncIterator[bytes], mode: int | None
) -> dict[str, Any]:
    """Replace or make a file, with its directories. It has the new bytes only when all of them have arrived."""
    reached = await reach(world, caller.user_id, reference)
    wish = Open(vm_id=reached.vm.id, session_id=new_id(), kind="write", path=absolute(path), mode=mode)
    size = 0
    async with await reached.open(wish) as session:
        async for chunk in body:
            size += len(chunk)
            if not await session.write(chunk):
                break
        await session.eof()
        async with aclosing(_bytes(session)) as rest:
            async for _ in rest:
                pass
    return {"path": wish.path, "size": size}


async def remove(world: World, caller: Caller, reference: str, path: str, *, recursive: bool) -> dict[str, Any]:
    await _files(world, caller, reference, "remove", path, recursive=recursive)
    return {"success": True, "path": absolute(path)}


async def listing(world: World, caller: Caller, reference: str, path: str) -> dict[str, Any]:
    """The entries of a directory, or the one entry of a file."""
    result = await _files(world, caller, reference, "list", path)
    entries = [
        {
            "name": entry.name,
            "type": entry.type,
            "size": entry.size,
            "mode": f"{entry.mode & 0o7777:o}",
            "uid": entry.uid,
            "gid": entry.gid,
            "modified_at": moment(entry.modified_ms),
            "target": entry.target,
        }
        for entry in result.entries
    ]
    return {"path": absolute(path), "entries": entries, "total": len(entries)}


async def _files(
    world: World, caller: Caller, reference: str, action: str, path: str, *, recursive: bool = False
) -> FilesResult:
    reached = await reach(world, caller.user_id, reference)
    request = Files(
        vm_id=reached.vm.id, action="remove" if action == "remove" else "list", path=absolute(path), recursive=recursive
    )
    return await reached.ask("files", request, FilesResult, timeout=LIST_TIMEOUT)
