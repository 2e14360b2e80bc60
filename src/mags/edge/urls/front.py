"""All of the public URLs, started and stopped as one."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import parse_qs, urlsplit

from mags.edge.activity import Activity
from mags.edge.config import Settings
from mags.edge.dialing import Dialer
from mags.edge.directory import Directory
from mags.edge.tasks import Tasks
from mags.edge.urls import caddy, http, names
from mags.edge.urls.gate import Gate, Request, Response
from mags.edge.urls.routes import Routes
from mags.kit.children import Child
from mags.protocol.errors import Problem

log = logging.getLogger("mags.edge.urls")


class Urls:
    def __init__(self, settings: Settings, directory: Directory, dialer: Dialer, activity: Activity) -> None:
        self._settings, self._directory = settings, directory
        self._routes = Routes(settings.sockets, directory, dialer, activity, patience=settings.listen_timeout_s)
        self._gate = Gate(directory, self._routes, apps_domain=settings.apps_domain, secure=settings.tls != "off")
        self._tasks = Tasks()
        self._servers: list[asyncio.Server] = []
        self.caddy: Child | None = None

    async def start(self) -> None:
        """Everything listens when this returns. ChildFailed when Caddy does not start (its port is taken)."""
        loop = asyncio.get_running_loop()
        sockets = self._settings.sockets
        sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._routes.start()
        gate = sockets / "gate.sock"
        gate.unlink(missing_ok=True)
        self._servers.append(
            await loop.create_unix_server(lambda: http.Connection(self._gate.answer, self._tasks), gate, backlog=1024)
        )
        asker = await loop.create_server(lambda: http.Connection(self._ask, self._tasks), "127.0.0.1", 0)
        self._servers.append(asker)
        config = caddy.configuration(
            self._settings,
            open_dir=self._routes.open_dir,
            gate=gate,
            ask_port=asker.sockets[0].getsockname()[1],
        )
        self.caddy = caddy.child(self._settings, config)
        await self.caddy.start()
        self._tasks.start(self._routes.run())
        log.info("public URLs: *.%s on %s", self._settings.apps_domain, self._settings.listen_http)

    async def aclose(self) -> None:
        if self.caddy is not None:
            await self.caddy.stop()
        for server in self._servers:
            server.close()
        await self._tasks.aclose()
        await self._routes.aclose()

    async def _ask(self, request: Request) -> Response:
        """May Caddy get a certificate for `?domain=`: 200 or 403."""
        values = parse_qs(urlsplit(request.target).query).get("domain", [])
        try:
            host = names.clean(values[0] if values else "")
            allowed = await self._directory.certificate_allowed(host)
        except ValueError:
            allowed = False
        except Problem as problem:
            log.warning("no certificate for %s: %s", values, problem.message)
            return Response(503)
        return Response(200 if allowed else 403)
