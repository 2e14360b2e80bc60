"""Names that are in use: each has a unix socket, and behind it relays to the VM that the name leads to now.

(no socket) -- the gate opens it --> open -- idle, closed to the public, made private, gone --> (no socket)
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from pathlib import Path

from mags.edge.activity import Activity
from mags.edge.dialing import Dialer
from mags.edge.directory import Directory
from mags.edge.tasks import Tasks
from mags.edge.urls.route import Key, Route
from mags.protocol.edge import Changed, Resolved
from mags.protocol.errors import Problem

log = logging.getLogger("mags.edge.urls")

IDLE = 300.0
"""Seconds without a connection after which a name's socket goes."""
SWEEP = 30.0
"""Seconds between two looks at all routes: for idle ones, and for changes that nobody told us of."""
LIMIT = 4096
"""Names with a socket at once; the longest idle makes room."""


class Routes:
    """All names in use. `open_dir` has the sockets that Caddy uses without asking, `gated_dir` those it is told of."""

    def __init__(
        self, sockets: Path, directory: Directory, dialer: Dialer, activity: Activity, *, patience: float
    ) -> None:
        self.open_dir, self.gated_dir = sockets / "u", sockets / "g"
        self.directory, self.dialer, self.activity, self.patience = directory, dialer, activity, patience
        self._routes: dict[Key, Route] = {}
        self._lock = asyncio.Lock()
        self._closing, self._checks = Tasks(), Tasks()

    async def start(self) -> None:
        """Clear what an edge of before has left (killed, it could not), and hear of changes."""
        for folder in (self.open_dir, self.gated_dir):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
        self.directory.on_changed(self._on_changed)
        self.dialer.on_down(self._on_down)
        self.dialer.on_release(self._on_release)

    async def aclose(self) -> None:
        for route in list(self._routes.values()):
            self.drop(route)
        await self._checks.aclose()
        await self._closing.settle()

    async def run(self, interval: float = SWEEP) -> None:
        """Look after all routes until cancelled."""
        while True:
            await asyncio.sleep(interval)
            now = asyncio.get_running_loop().time()
            for route in list(self._routes.values()):
                if route.connections == 0 and now - route.used > IDLE:
                    self.drop(route)
                elif route.connections:
                    await self._recheck(route)

    async def ensure(self, key: Key, host: str, target: Resolved) -> Path:
        """The socket of a name that `target` was the answer for; made if there is none. Problem when there are too
        many. A public name of the apps domain gets one that Caddy finds by itself."""
        async with self._lock:
            route = self._routes.get(key)
            if route is not None and route.target.private == target.private:
                route.used = asyncio.get_running_loop().time()
                return route.path
            if route is not None:
                self.drop(route)
            self._make_room()
            if key[1] is None and not target.private:
                path = self.open_dir / f"{key[0]}.sock"
            else:
                digest = hashlib.sha256(f"{key[0]}.{key[1] or ''}".encode()).hexdigest()[:32]
                path = self.gated_dir / f"{digest}.sock"
            route = Route(self, key, host, target, path)
            await route.open()
            self._routes[key] = route
            return path

    def drop(self, route: Route) -> None:
        """Close a route and forget it."""
        if self._routes.get(route.key) is route:
            del self._routes[route.key]
            route.close()
            self._closing.start(route.settled())

    def _make_room(self) -> None:
        if len(self._routes) < LIMIT:
            return
        idle = [route for route in self._routes.values() if route.connections == 0]
        if not idle:
            raise Problem("unavailable", "This edge serves as many addresses as it can. Try again soon.")
        self.drop(min(idle, key=lambda route: route.used))

    def _on_changed(self, changed: Changed) -> None:
        for route in list(self._routes.values()):
            target = route.target
            if {target.subdomain, route.key[0]} & set(changed.subdomains) or target.vm_id in changed.vms:
                self._checks.start(self._recheck(route))

    def _on_down(self, vm_id: str, at_ms: float) -> None:
        # What came after has woken it again, though this news may only come now.
        for route in self._routes.values():
            route.cut_before(vm_id, at_ms)

    def _on_release(self, vm_id: str) -> int:
        return sum(route.let_go(vm_id) for route in self._routes.values())

    async def _recheck(self, route: Route) -> None:
        try:
            keep = await route.recheck()
        except Problem as problem:
            log.debug("%s: %s", route.host, problem.message)  # control is away: what was so a moment ago holds
            return
        if not keep:
            self.drop(route)
