"""The database engine: SQLite or PostgreSQL, transactions, migrations."""

from __future__ import annotations

from mags.control.db.engine import Database, now_ms
from mags.control.db.migrate import migrate

__all__ = ["Database", "migrate", "now_ms"]
