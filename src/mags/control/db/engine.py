"""Transactions on SQLite and PostgreSQL.

    async with db.read() as session: ...     # a consistent look; nothing is kept
    async with db.write() as session: ...    # committed at the end, rolled back on an exception

SQLite knows one writer at a time: writers of this process queue for a lock rather than poll, and take the database with
BEGIN IMMEDIATE, so that a transaction never fails halfway because another was quicker. Commits are not synced to the
disk one by one (WAL, synchronous=NORMAL): a crash of the program loses nothing, a power cut may lose the last moments.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from mags.control.db import sqlite

BUSY_PATIENCE_S = 20.0
"""Patience with writers of other processes."""
CHECKPOINT_EVERY = 500
"""Writing transactions between two checkpoints: some MB of log."""


def now_ms() -> int:
    """Unix time in milliseconds; every time in the database is one."""
    return time.time_ns() // 1_000_000


class Database:
    """The engine and its two kinds of transactions."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = (
            sqlite.create_engine(self.url) if self.sqlite else create_async_engine(url, pool_size=10, max_overflow=20)
        )
        self._writers = asyncio.Lock()
        self._writing = self.engine.execution_options(mags_write=True)
        # PostgreSQL's own default looks anew with each statement.
        self._reading = self.engine if self.sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        self._written = 0
        self._checkpoint: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        async with self._session(self._reading) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        if not self.sqlite:
            async with self._session(self._writing) as session:
                async with session.begin():
                    yield session
            return
        async with self._writers:
            async with self._session(self._writing) as session:
                await self._begin(session)
                try:
                    yield session
                    await session.commit()
                except BaseException:
                    await session.rollback()
                    raise
            self._note_written()

    @asynccontextmanager
    async def _session(self, engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
        session = AsyncSession(engine, expire_on_commit=False, autoflush=False)
        if not self.sqlite:
            async with session:
                yield session
            return
        try:
            yield session
        finally:
            await session.close()  # never waits, so it needs no task of its own to be safe from cancellation

    async def _begin(self, session: AsyncSession) -> None:
        """Begin to write, also if another process is writing now."""
        deadline = time.monotonic() + BUSY_PATIENCE_S
        while True:
            try:
                await session.connection()
                return
            except sqlite3.OperationalError as error:
                if not sqlite.is_busy(error) or time.monotonic() > deadline:
                    raise
            await session.rollback()
            await asyncio.sleep(0.005)

    def _note_written(self) -> None:
        self._written += 1
        if self._written >= CHECKPOINT_EVERY and (self._checkpoint is None or self._checkpoint.done()):
            self._written = 0
            self._checkpoint = asyncio.ensure_future(asyncio.to_thread(sqlite.checkpoint, str(self.url.database)))

    async def close(self) -> None:
        if self._checkpoint is not None:
            await asyncio.gather(self._checkpoint, return_exceptions=True)
        await self.engine.dispose()
