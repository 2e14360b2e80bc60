"""The metadata engine of a volume, looked at from outside: JuiceFS takes a minute to say that nobody answers, and makes
an empty database where the file of the old one is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from mags.host.storage.errors import StorageUnavailable

PORTS = {"redis": 6379, "rediss": 6379, "postgres": 5432, "mysql": 3306}
CONNECT_TIMEOUT = 5.0


def require_file(url: str) -> None:
    """StorageUnavailable if the database is a file, and gone. For a volume that there was before. Blocks."""
    if (file := database_file(url)) is not None and not file.exists():
        raise StorageUnavailable(
            f"The metadata of the workspaces, the file {file}, is gone: put it back. Without it nobody knows which "
            "block belongs where; nothing was changed in the store."
        )


async def reach(url: str) -> None:
    """StorageUnavailable if the engine is behind TCP and nobody listens there.

    Not to be asked for ever: MySQL locks hosts out that connect a hundred times and say nothing.
    """
    if (place := address(url)) is not None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, writer = await asyncio.open_connection(*place)
        except (OSError, TimeoutError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else "no answer in time"
            raise StorageUnavailable(
                f"The metadata engine at {place[0]}:{place[1]} does not answer ({words}): is it running and reachable? "
                "(MAGS_HOST_STORAGE_META_URL)"
            ) from error
        writer.close()


def database_file(url: str) -> Path | None:
    """The file of an SQLite database; None for another engine."""
    scheme, _, rest = url.partition("://")
    return Path(rest.partition("?")[0]) if scheme == "sqlite3" else None


def address(url: str) -> tuple[str, int] | None:
    """Host and port of an engine behind TCP; None where it is not one such place (a socket, several hosts, a file)."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2].removeprefix("(").removesuffix(")")  # mysql://user@(host:port)/name
    if parts.scheme not in PORTS or not place or set(place) & set(",/("):
        return None
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, str(PORTS[parts.scheme])
    return (host.strip("[]"), int(port)) if host and port.isdigit() else None
