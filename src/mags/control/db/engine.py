"""Transactions on SQLite and PostgreSQL.

    async with db.read() as session: ...     # a consistent look; nothing is kept
    async with db.write() as session: ...    # committed at the end, rolled back on an exception

SQLite knows one writer at a time: writers of this process queue for a lock rather than poll, and take the database with
BEGIN IMMEDIATE, so that a transaction never fails halfway because another was quicker. Commits are not synced to the
disk one by one (WAL, synchronous=NORMAL): a crash of the program loses nothing, a power cut may lose the last moments.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

BUSY_TIMEOUT_MS = 20_000
"""Patience with writers of other processes."""


def now_ms() -> int:
    """Unix time in milliseconds; every time in the database is one."""
    return time.time_ns() // 1_000_000


class Database:
    """The engine and its two kinds of transactions."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite(url) if self.sqlite else create_async_engine(url, pool_size=10, max_overflow=20)
        self._writers = asyncio.Lock()
        self._writing = self.engine.execution_options(mags_write=True)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        if not self.sqlite:
            async with AsyncSession(self._writing, expire_on_commit=False, autoflush=False) as session:
                async with session.begin():
                    yield session
            return
        async with self._writers:
            async with AsyncSession(self._writing, expire_on_commit=False, autoflush=False) as session:
                async with session.begin():
                    yield session

    async def close(self) -> None:
        await self.engine.dispose()


def _sqlite(url: str) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=8, max_overflow=8)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("mags_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
