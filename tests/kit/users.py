"""Users of an installation beside its first one."""

from __future__ import annotations

import asyncio

from mags.control.db import Database
from mags.control.records import accounts
from mags.protocol.ids import new_id
from tests.kit.installation import Installation


def another(mags: Installation) -> str:
    """The token of a new user."""
    return asyncio.run(_another(mags))


async def _another(mags: Installation) -> str:
    database, token = Database(f"sqlite:///{mags.data}/control.db"), f"mags_test_{new_id()}"
    try:
        async with database.write() as session:
            user = await accounts.add_user(session, f"other-{new_id()}")
            await accounts.add_token(session, user, token, name="test")
    finally:
        await database.close()
    return token
