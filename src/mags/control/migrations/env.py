"""Alembic's entry: the connection comes from `mags.control.db.migrate` (and the tests), never from a file."""

from __future__ import annotations

from alembic import context

from mags.control.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
