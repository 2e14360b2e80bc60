"""Local files: as the multipart body of POST /mags-files (RFC 7578), as other bodies, and as what comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mags.sdk.calls import files
from mags.sdk.calls.call import Call
from mags.sdk.errors import MagsError
from mags.sdk.transports import Body

if TYPE_CHECKING:
    from mags.sdk import types

CHUNK = 1 << 20


def file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


@contextmanager
def whole(file_path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file that gets its name at the end of the block; none is left when the block fails."""
    target = Path(file_path)
    partial = target.with_name(f".{target.name}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def upload_call(file_path: str | os.PathLike[str]) -> Call[types.File]:
    """MagsError when there is no such file."""
    path = Path(file_path)
    if not path.is_file():
        raise MagsError(f"There is no file {file_path}.")
    boundary = os.urandom(16).hex()
    name = path.name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        yield from file_chunks(path)
        yield tail

    return files.upload(body, length=len(head) + path.stat().st_size + len(tail), boundary=boundary)


def readable(content: bytes | str | os.PathLike[str] | BinaryIO) -> tuple[Body, int | None, bool]:
    """A body for PUT, its length if it is known, and whether it can be read only once (a pipe). An open file is read
    from where it stands, again if need be."""
    if isinstance(content, bytes):
        return content, len(content), False
    if isinstance(content, str):
        return content.encode(), len(content.encode()), False
    if isinstance(content, os.PathLike):
        path = Path(content)
        if not path.is_file():
            raise MagsError(f"There is no file {path}.")
        return (lambda: file_chunks(path)), path.stat().st_size, False
    file, start = content, content.tell() if content.seekable() else None

    def chunks() -> Iterator[bytes]:
        if start is not None:
            file.seek(start)
        while chunk := file.read(CHUNK):
            yield chunk

    return chunks, None, start is None
