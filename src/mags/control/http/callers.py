"""Who asks: the bearer token, looked up once and remembered for some seconds, and what its scopes allow."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from mags.control.db import Database, now_ms
from mags.control.records.accounts import Caller, by_token, digest, touch_token
from mags.protocol.errors import Problem

REMEMBERED = 5.0
"""Seconds that a token's user is kept in memory: at most so long does a revoked token work at another control."""
TOUCHED_EVERY = 60.0
"""Seconds between two records of a token's last use."""
MAX_REMEMBERED = 10_000

_scheme = HTTPBearer(auto_error=False, description="An API token: `Authorization: Bearer TOKEN`.")


class Authenticator:
    """Tokens to callers, with a small memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[Caller, float]] = {}
        self._touched: dict[str, float] = {}

    async def caller(self, token: str | None) -> Caller:
        """Problem(unauthorized) without a good token."""
        if not token:
            raise Problem("unauthorized", "Give an API token: Authorization: Bearer TOKEN. (`mags login` saves one.)")
        key = digest(token)
        moment = time.monotonic()
        known = self._known.get(key)
        if known is not None and known[1] > moment:
            if known[0].expires_ms is not None and known[0].expires_ms <= now_ms():
                self.forget(key)
            else:
                return known[0]
        async with self._database.read() as session:
            caller = await by_token(session, key)
        if caller is None:
            self._known.pop(key, None)
            raise Problem("unauthorized", "This API token is not valid (any more). Get one from your administrator.")
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = (caller, moment + REMEMBERED)
        await self._touch(caller.token_id, moment)
        return caller

    async def _touch(self, token_id: str, moment: float) -> None:
        if moment - self._touched.get(token_id, -TOUCHED_EVERY) < TOUCHED_EVERY:
            return
        if len(self._touched) >= MAX_REMEMBERED:
            self._touched.clear()
        self._touched[token_id] = moment
        async with self._database.write() as session:
            await touch_token(session, token_id)

    def forget(self, token_digest: str) -> None:
        """The token has been revoked."""
        self._known.pop(token_digest, None)


def require(caller: Caller, scope: str) -> Caller:
    if scope not in caller.scopes:
        raise Problem("forbidden", f"This token may not do that: it lacks the scope {scope!r}.", scope=scope)
    return caller


def authenticator(connection: HTTPConnection) -> Authenticator:
    found = connection.app.state.authenticator
    assert isinstance(found, Authenticator)
    return found


async def _caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]
) -> Caller:
    return await authenticator(request).caller(credentials.credentials if credentials is not None else None)


async def _reader(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    return require(caller, "read")


async def _writer(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    return require(caller, "write")


async def _keeper(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    return require(caller, "tokens")


Reader = Annotated[Caller, Depends(_reader)]
Writer = Annotated[Caller, Depends(_writer)]
Keeper = Annotated[Caller, Depends(_keeper)]
"""May make and revoke tokens."""
