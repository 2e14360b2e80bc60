"""What surrounds the routes, as plain ASGI: the largest body, and bytes that may not be in a URL."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mags.control.http.answers import problem_answer
from mags.protocol.errors import Problem


class Shell:
    """Refuses what no route should have to look at. Uploads stream their bodies and have limits of their own."""

    def __init__(self, app: ASGIApp, *, max_body: int) -> None:
        self._app, self._max_body = app, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if b"%00" in scope.get("raw_path", b"") or b"%00" in scope.get("query_string", b""):
            await problem_answer(Problem("bad_request", "A URL may not contain %00."))(scope, receive, send)
            return
        if _streams(scope):
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > self._max_body:
            problem = Problem("too_large", f"The body is larger than {self._max_body} bytes.")
            await problem_answer(problem)(scope, receive, send)
            return
        await self._app(scope, _bounded(receive, self._max_body), send)


def _streams(scope: Scope) -> bool:
    path, method = str(scope["path"]), str(scope["method"])
    return (method == "PUT" and path.endswith("/files")) or (method == "POST" and path.endswith("/mags-files"))


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
