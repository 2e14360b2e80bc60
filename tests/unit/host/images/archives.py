"""Tar archives for tests, also such as no honest program writes."""

from __future__ import annotations

import io
import tarfile
import zlib
from pathlib import Path


def member(name: str, data: bytes | None = None, **fields: object) -> tuple[tarfile.TarInfo, bytes | None]:
    """A file when there is data, else what `fields` (of tarfile.TarInfo) make of it."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    if data is not None:
        info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, None]:
    return member(name, type=tarfile.DIRTYPE, mode=mode)[0], None


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, None]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)[0], None


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, None]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)[0], None


def tar(*members: tuple[tarfile.TarInfo, bytes | None], mode: str = "w:") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def bomb(mib: int) -> bytes:
    """A small gzipped tar whose first extended header is that long, and all zeros (the end is missing)."""
    gzip = zlib.compressobj(1, zlib.DEFLATED, 31)
    head = member("x", type=tarfile.XHDTYPE, size=mib << 20)[0].tobuf(tarfile.GNU_FORMAT)
    out = gzip.compress(head + bytes(1 << 24)) + gzip.flush(zlib.Z_FULL_FLUSH)
    # What comes after a full flush refers to nothing before it, so that it can be repeated.
    piece = gzip.compress(bytes(1 << 24)) + gzip.flush(zlib.Z_FULL_FLUSH)
    return out + piece * (mib >> 4)


def listing(tree: Path) -> dict[str, bytes | str | None]:
    """Name -> content of a file, target of a link, None of a directory."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found
