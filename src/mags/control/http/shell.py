"""What surrounds the routes, as plain ASGI: the largest body, and bytes that may not be in a URL."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mags.control.http.answers import problem_answer
from mags.protocol.errors import Problem

MULTIPART = 64 << 10
"""Bytes that an upload may have around its file."""


class Shell:
    """Refuses what no route should have to look at."""

    def __init__(self, app: ASGIApp, *, max_body: int, max_upload: int) -> None:
        self._app, self._max_body, self._max_upload = app, max_body, max_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if b"%00" in scope.get("raw_path", b"") or b"%00" in scope.get("query_string", b""):
            await problem_answer(Problem("bad_request", "A URL may not contain %00."))(scope, receive, send)
            return
        limit = self._limit(str(scope["path"]), str(scope["method"]))
        if limit is None:
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > limit:
            problem = Problem("too_large", f"The body is larger than {limit} bytes.")
            await problem_answer(problem)(scope, receive, send)
            return
        await self._app(scope, _bounded(receive, limit), send)

    def _limit(self, path: str, method: str) -> int | None:
        """Bytes of body; None for files that go straight to a host, piece by piece."""
        if (method == "PUT" and path.endswith("/files")) or (method == "POST" and path.endswith("/import")):
            return None
        if method == "POST" and path.endswith("/mags-files"):
            return self._max_upload + MULTIPART
        return self._max_body


def _bounded(receive: Receive, limit: int) -> Receive:
    got = 0

    async def bounded() -> Message:
        nonlocal got
        message = await receive()
        if message["type"] == "http.request":
            got += len(message.get("body", b""))
            if got > limit:
                raise HTTPException(413, f"The body is larger than {limit} bytes.")
        return message

    return bounded
