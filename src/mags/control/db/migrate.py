"""Bring the schema up to date at start, one program at a time."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from mags.control.db.engine import Database
from mags.kit import locks

MIGRATIONS = Path(__file__).parent.parent / "migrations"
LOCK_TIMEOUT = 120.0
"""Seconds to wait for another program that migrates."""
_ADVISORY_LOCK = 0x6D616773
"""Any number that is the same in every control ("mags")."""


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


async def migrate(database: Database) -> None:
    """Run every migration that is missing. TimeoutError when another program holds the lock for too long."""
    if database.sqlite:
        path = Path(database.url.database or "control.db")
        path.parent.mkdir(parents=True, exist_ok=True)
        async with locks.exclusive(path.with_name(path.name + ".lock"), timeout=LOCK_TIMEOUT):
            async with database.engine.connect() as connection:
                await connection.run_sync(_upgrade)
        return
    async with database.engine.connect() as connection:
        await connection.execute(text(f"SET lock_timeout = {int(LOCK_TIMEOUT * 1000)}"))
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
        await connection.commit()
        try:
            await connection.run_sync(_upgrade)
        finally:
            await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_LOCK})
            await connection.execute(text("RESET lock_timeout"))
            await connection.commit()


def _upgrade(connection: Connection) -> None:
    config = alembic_config()
    head = ScriptDirectory.from_config(config).get_current_head()
    current = MigrationContext.configure(connection).get_current_revision()
    connection.commit()
    if current == head:
        return
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()
