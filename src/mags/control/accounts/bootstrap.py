"""The first user, from a token in a file, so that a new installation can be used at once."""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from mags.control.db import Database
from mags.control.records import accounts

log = logging.getLogger("mags.control.accounts")

MIN_TOKEN = 20


async def bootstrap(database: Database, token_file: Path | None, name: str) -> None:
    """Make the user and give it the token, if either is missing. ValueError when the file holds no token."""
    if token_file is None:
        return
    token = token_file.read_text().strip()
    if len(token) < MIN_TOKEN:
        raise ValueError(f"{token_file} holds no token of at least {MIN_TOKEN} characters.")
    try:
        async with database.write() as session:
            if await accounts.by_token(session, accounts.digest(token)) is not None:
                return
            user = await accounts.user_by_name(session, name)
            owner = user.id if user is not None else await accounts.add_user(session, name)
            await accounts.add_token(session, owner, token, name="bootstrap")
            log.info("user %s has the token of %s", name, token_file)
    except IntegrityError:  # another control did it at the same time, or the token has been revoked and run out
        log.info("the token of %s is known already", token_file)
