"""Names that are in use: each has a unix socket, and behind it relays to the VM that the name leads to now.

(no socket) -- the gate opens it --> open -- idle, closed to the public, made private, gone --> (no socket)
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import time
from pathlib import Path

from mags.edge.activity import Activity
from mags.edge.dialing import Dialer, NotListening
from mags.edge.directory import STARTING_PATIENCE, Directory
from mags.edge.tasks import Tasks
from mags.edge.urls import pages
from mags.edge.urls.relay import Back, Front
from mags.protocol.edge import Changed, Resolved
from mags.protocol.errors import Problem

log = logging.getLogger("mags.edge.urls")

IDLE = 300.0
"""Seconds without a connection after which a name's socket goes."""
SWEEP = 30.0
"""Seconds between two looks at all routes: for idle ones, and for changes that nobody told us of."""
LAST_MOMENT = 0.2
"""Seconds between a socket's removal and the end of its server."""
LIMIT = 4096
"""Names with a socket at once; the longest idle makes room."""

Key = tuple[str, str | None]
"""A label, and the domain after it (None: the apps domain)."""


class Route:
    """One name's socket and its connections."""

    def __init__(self, routes: Routes, key: Key, host: str, target: Resolved, path: Path) -> None:
        self.key, self.host, self.target, self.path = key, host, target, path
        self.used = asyncio.get_running_loop().time()
        self._routes = routes
        self._fronts: set[Front] = set()
        self._leads: dict[Front, Resolved] = {}
        """Where each front is connected to, or being so."""
        self._server: asyncio.Server | None = None
        self._closed = False
        self._tasks = Tasks()

    @property
    def connections(self) -> int:
        return len(self._fronts)

    async def open(self) -> None:
        self.path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Front(self._opened, self._left), self.path, backlog=1024)

    def close(self) -> None:
        """The socket goes at once, connections are cut (those with an answer on its way get that). Repeatable."""
        if self._closed:
            return  # by now the path may be another route's
        self._closed = True
        self.path.unlink(missing_ok=True)
        for front in list(self._fronts):
            front.abort()
        self._tasks.cancel()

    async def settled(self) -> None:
        """After `close`: wait for the last of its tasks."""
        await self._tasks.aclose()
        if self._server is not None:
            # asyncio forgets connections that have been accepted but not yet made when their server closes; nobody
            # can connect any more, so a moment is enough for these to be made, and refused.
            await asyncio.sleep(LAST_MOMENT)
            self._server.close()
            self._server = None

    async def recheck(self, *, patience: float = 0.0) -> bool:
        """Ask whose the name is now (waiting for a VM that is being placed). False: this socket must go.

        Leads it elsewhere now, the connections of before are cut: one that Caddy keeps for the name's next request
        would lead to the VM of before.
        """
        fresh = await self._routes.directory.resolve(*self.key, patience=patience)
        if fresh.status == "starting" and not patience:
            return True
        if fresh.status != "ok" or fresh.private != self.target.private:
            return False
        self.target = fresh
        for front, lead in list(self._leads.items()):
            if (lead.vm_id, lead.port) != (fresh.vm_id, fresh.port):
                front.abort()
        return True

    def cut_before(self, vm_id: str, at_ms: float) -> None:
        """End the connections that have led to this VM since before then (Unix time)."""
        for front, lead in list(self._leads.items()):
            if lead.vm_id == vm_id and front.joined_ms is not None and front.joined_ms <= at_ms:
                front.abort()

    def _opened(self, front: Front) -> None:
        if self._closed:  # it had connected just before the socket went
            front.refuse(self._changed().raw())
            return
        self._fronts.add(front)
        self._tasks.start(self._connect(front))

    def _left(self, front: Front) -> None:
        self._fronts.discard(front)
        self._uncount(front)
        self.used = asyncio.get_running_loop().time()

    async def _connect(self, front: Front) -> None:
        try:
            await self._join(front)
        except Problem as problem:
            log.info("%s: %s", self.host, problem.message)
            front.refuse(self._page(problem).raw())
        except NotListening:
            front.refuse(self._not_listening().raw())
        except Exception:
            log.exception("a connection of %s", self.host)
            front.refuse(pages.trouble("Something went wrong on our side.").raw())

    async def _join(self, front: Front) -> None:
        """Connect `front` to the VM. Problem, NotListening when it can't be."""
        for attempt in (1, 2):
            if not await self.recheck(patience=STARTING_PATIENCE):
                front.refuse(self._changed().raw())
                self._routes.drop(self)
                return
            target = self.target
            self._count(front, target)
            try:
                await self._routes.dialer.connect(
                    target.host_id, target.vm_id, target.port, lambda: Back(front), patience=self._routes.patience
                )
                front.joined_ms = time.time() * 1000
                return
            except Problem as problem:
                self._uncount(front)
                if attempt == 2 or problem.code not in ("not_found", "gone"):
                    raise
                self._routes.directory.forget(*self.key)

    def _count(self, front: Front, target: Resolved) -> None:
        if front.open:
            self._leads[front] = target
            self._routes.activity.opened(target.host_id, target.vm_id)

    def _uncount(self, front: Front) -> None:
        lead = self._leads.pop(front, None)
        if lead is not None:
            self._routes.activity.closed(lead.host_id, lead.vm_id)

    def _page(self, problem: Problem) -> pages.Page:
        if problem.code in ("not_found", "gone"):
            return pages.stopped(self.host, self.target.name)
        if problem.code == "guest_failed":
            return self._not_listening()
        return pages.trouble(problem.message)

    def _changed(self) -> pages.Page:
        return pages.trouble(f"{self.host} has just changed. Load it again.")

    def _not_listening(self) -> pages.Page:
        return pages.not_listening(self.target.port, self.target.name, self._routes.patience)


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

    async def _recheck(self, route: Route) -> None:
        try:
            keep = await route.recheck()
        except Problem as problem:
            log.debug("%s: %s", route.host, problem.message)  # control is away: what was so a moment ago holds
            return
        if not keep:
            self.drop(route)
