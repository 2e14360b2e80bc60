"""One name's socket, and the connections that come through it: each is led to the VM that the name means when a request
comes, and let go of when that VM falls asleep or the name leads elsewhere."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mags.edge.dialing import NotListening
from mags.edge.directory import STARTING_PATIENCE
from mags.edge.tasks import Tasks
from mags.edge.urls import pages
from mags.edge.urls.relay import Back, Front
from mags.protocol.edge import Resolved
from mags.protocol.errors import Problem

if TYPE_CHECKING:
    from mags.edge.urls.routes import Routes

log = logging.getLogger("mags.edge.urls")

LAST_MOMENT = 0.2
"""Seconds between a socket's removal and the end of its server."""

Key = tuple[str, str | None]
"""A label, and the domain after it (None: the apps domain)."""


class Route:
    """The owner of its Fronts (`relay.Owner`)."""

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
        self._server = await loop.create_unix_server(lambda: Front(self), self.path, backlog=1024)

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

        Leads it elsewhere now, the connections of before are let go of or cut: one that Caddy keeps for the name's next
        request would lead to the VM of before.
        """
        fresh = await self._routes.directory.resolve(*self.key, patience=patience)
        if fresh.status == "starting" and not patience:
            return True
        if fresh.status != "ok" or fresh.private != self.target.private:
            return False
        self.target = fresh
        for front, lead in list(self._leads.items()):
            if (lead.vm_id, lead.port) != (fresh.vm_id, fresh.port) and not front.rest():
                front.abort()
        return True

    def let_go(self, vm_id: str) -> int:
        """End the connections to this VM that are between two requests; how many are in the middle of one."""
        joined = [front for front, lead in self._leads.items() if lead.vm_id == vm_id and front.peer is not None]
        return sum(not front.rest() for front in joined)

    def cut_before(self, vm_id: str, at_ms: float) -> None:
        """End the connections that have led to this VM since before then (Unix time)."""
        for front, lead in list(self._leads.items()):
            if lead.vm_id == vm_id and front.joined_ms is not None and front.joined_ms <= at_ms:
                front.cut(pages.went_down().raw())

    # --- told by fronts -------------------------------------------------------------------------------------------

    def opened(self, front: Front) -> None:
        if self._closed:  # it had connected just before the socket went
            front.refuse(self._changed().raw())
            return
        self._fronts.add(front)
        self.wanting(front)

    def wanting(self, front: Front) -> None:
        self._tasks.start(self._connect(front))

    def rested(self, front: Front) -> None:
        self._uncount(front)

    def left(self, front: Front) -> None:
        self._fronts.discard(front)
        self._uncount(front)
        self.used = asyncio.get_running_loop().time()

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _connect(self, front: Front) -> None:
        try:
            await self._join(front)
        except Problem as problem:
            log.info("%s (%s): %s", self.host, self.target.name, problem.message)
            front.refuse(self._page(problem).raw())
        except NotListening as error:
            log.info("%s (%s): %s", self.host, self.target.name, error)
            front.refuse(self._not_listening().raw())
        except Exception:
            log.exception("a connection of %s", self.host)
            front.refuse(pages.trouble().raw())

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
            return pages.stopped(self.host)
        if problem.code == "guest_failed":
            return self._not_listening()
        return pages.problem(problem.code)

    def _changed(self) -> pages.Page:
        return pages.changed(self.host)

    def _not_listening(self) -> pages.Page:
        return pages.not_listening(self.target.port, self._routes.patience)
