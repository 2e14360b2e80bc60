"""The gate: Caddy asks it about every request that finds no socket, and about every one to a private URL.

It is asked with the request's headers only, as a GET (`X-Forwarded-Uri` has the target). Its answer is either 200 with
`X-Mags-Socket`, the socket that the request goes on to, or the answer that the client gets.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from mags.edge.directory import STARTING_PATIENCE, Directory
from mags.edge.urls import names, pages
from mags.edge.urls.pages import Page
from mags.edge.urls.routes import Routes
from mags.protocol.edge import LINK_PARAMETER, Resolved, check_link
from mags.protocol.errors import Problem

log = logging.getLogger("mags.edge.gate")

SOCKET_HEADER = "X-Mags-Socket"
TOKEN_HEADER = "X-Mags-Token"
HEALTH_PATH = "/api/v1/health"
COOKIE_LIFETIME = 7 * 24 * 3600
"""Seconds; the link's own expiry comes first when it is sooner."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the gate sees of a request: header names in lower case."""

    host: str
    target: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


class Gate:
    def __init__(self, directory: Directory, routes: Routes, *, apps_domain: str, secure: bool) -> None:
        self._directory, self._routes = directory, routes
        self._apps_domain, self._secure = apps_domain, secure

    async def answer(self, request: Request) -> Response:
        """Never raises but for cancellation."""
        try:
            return await self._answer(request)
        except Problem as problem:
            log.info("%s: %s", request.host, problem.message)
            return _page(pages.problem(problem.code))
        except Exception:
            log.exception("a request to %s", request.host)
            return _page(pages.trouble())

    async def _answer(self, request: Request) -> Response:
        try:
            host = names.clean(request.host)
        except ValueError:
            return _page(Page(400, "Bad request", "The request names no valid host."))
        if names.is_ours(host, self._apps_domain):
            if urlsplit(request.target).path == HEALTH_PATH:
                return Response(200, [("Content-Type", "application/json")], b'{"status":"ok"}')
            return _page(pages.unknown(host))
        key = names.split(host, self._apps_domain)
        if key is None:
            return _page(pages.unknown(host))
        target = await self._directory.resolve(*key, patience=STARTING_PATIENCE)
        if target.status != "ok":
            return _page(_refusal(target, host))
        if target.private:
            refused = await self._authorise(request, host, target)
            if refused is not None:
                return refused
        path = await self._routes.ensure(key, host, target)
        return Response(200, [(SOCKET_HEADER, str(path))])

    async def _authorise(self, request: Request, host: str, target: Resolved) -> Response | None:
        """None when the request may pass; else what the client gets instead."""
        path, _, search = request.target.partition("?")
        query = parse_qsl(search, keep_blank_values=True)
        for key, value in query:
            if key == LINK_PARAMETER and check_link(target.secret, value):
                rest = [pair for pair in query if pair[0] != LINK_PARAMETER]
                # One slash: browsers take `//host` and `/\\host` for another site, and links come from strangers.
                where = "/" + path.replace("\\", "%5C").lstrip("/") + (f"?{urlencode(rest)}" if rest else "")
                return Response(303, [("Location", where), ("Set-Cookie", self._cookie(value)), _NO_STORE])
        cookies = _keys_of(request.headers.get("cookie", ""))
        if any(check_link(target.secret, key) for key in cookies):
            return None
        token = request.headers.get(TOKEN_HEADER.lower())
        if token and len(token) <= 512 and await self._directory.token_opens(target.subdomain, token):
            return None
        return _page(pages.private(host))

    def _cookie(self, value: str) -> str:
        lifetime = min(COOKIE_LIFETIME, max(0, int(value.partition(".")[0]) - int(time.time())))
        secure = "; Secure" if self._secure else ""
        return f"{LINK_PARAMETER}={value}; Path=/; Max-Age={lifetime}; HttpOnly; SameSite=Lax{secure}"


_NO_STORE = ("Cache-Control", "no-store")


def _keys_of(header: str) -> list[str]:
    """All that a Cookie header has under our name, whatever else programs of this domain have set: http.cookies gives
    up at the first cookie that it can't read, and of two with one name it knows the last."""
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return [value for name, _, value in pairs if name == LINK_PARAMETER]


def _page(page: Page) -> Response:
    return Response(page.status, page.headers, page.body())


def _refusal(target: Resolved, host: str) -> Page:
    if target.status == "stopped":
        return pages.stopped(host)
    if target.status == "closed":
        return pages.closed(host, target.port)
    if target.status == "starting":
        return pages.starting(host)
    return pages.unknown(host)
