"""SQLite called right in the event loop.

A statement of ours takes some ten microseconds; handing it to a thread and back takes several times that, and a
transaction has a dozen of them. What may wait is done elsewhere: for another process's writing transaction we wait
between tries (`Database.write`), and the write-ahead log is brought into the database by a thread (`checkpoint`).
"""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool

DRIVER = "sqlite+inline"
BUSY_TIMEOUT_MS = 1_000
"""For what SQLite locks but a moment: a reader while another process recovers or closes the database."""


class _Cursor(sqlite3.Cursor):
    async def _async_soft_close(self) -> None:
        """SQLAlchemy asks every cursor of an asynchronous engine for this; here nothing has to be fetched before."""


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


class InlineDialect(SQLiteDialect_pysqlite):
    """sqlite3 for SQLAlchemy's asynchronous engine: nothing in it ever waits for the event loop."""

    driver = "inline"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        return AsyncAdaptedQueuePool


registry.register("sqlite.inline", __name__, InlineDialect.__name__)


def create_engine(url: URL) -> AsyncEngine:
    """An engine for any URL of SQLite. Connections with the execution option `mags_write` begin as writers."""
    engine = create_async_engine(
        url.set(drivername=DRIVER), pool_size=8, max_overflow=8, connect_args={"factory": _Connection}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "wal_autocheckpoint=0",
            "foreign_keys=ON",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        plain: Any = connection.connection.dbapi_connection
        if not connection.get_execution_options().get("mags_write"):
            plain.execute("BEGIN")
            return
        plain.execute("PRAGMA busy_timeout=0")
        try:
            plain.execute("BEGIN IMMEDIATE")
        finally:
            plain.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")

    return engine


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process is just writing."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def checkpoint(path: str) -> None:
    """Bring the write-ahead log into the database, as far as nobody reads it: with syncs, so it may take a while."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000)
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    finally:
        connection.close()
