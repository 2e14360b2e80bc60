"""Edges with connections of their own into a VM: asked to let go of it before it falls asleep, so that no request is
cut. (Such a connection is made to the VM's address, past us; only the edge sees what goes on in it.)"""

from __future__ import annotations

import logging

from mags.hostclient import HostClient
from mags.protocol import edge
from mags.protocol.errors import Problem
from mags.protocol.ids import is_id

log = logging.getLogger(__name__)

ANSWER_S = 2.0
"""An edge that keeps silent for so long is no reason to stay awake."""
MOST = 64


class Callers:
    """Of one VM."""

    def __init__(self, client: HostClient, vm_id: str) -> None:
        self._client, self._vm_id = client, vm_id
        self._edges: dict[str, None] = {}
        """The earliest first."""

    def note(self, edge_id: str) -> None:
        """An edge has connections into the VM, or is about to."""
        if not is_id(edge_id):
            return
        self._edges[edge_id] = None
        if len(self._edges) > MOST:
            del self._edges[next(iter(self._edges))]

    async def release(self) -> int:
        """Have them end the connections on which nothing is under way: how many others there are. Nobody must be let in
        until the VM sleeps, or the answer says nothing."""
        if not self._client.connection.is_connected:
            return len(self._edges)  # nobody can be asked, so each may be in the middle of something
        busy = 0
        for edge_id in list(self._edges):
            wish = edge.Release(vm_id=self._vm_id)
            try:
                answer = await self._client.ask(
                    edge.release(edge_id), wish, edge.Released, timeout=ANSWER_S, who=f"Edge {edge_id}"
                )
            except Problem as problem:
                log.info("%s Connections of its into VM %s may be cut.", problem.message, self._vm_id)
                busy_there = 0
            else:
                busy_there = answer.busy
            if not busy_there:
                self._edges.pop(edge_id, None)
            busy += busy_there
        return busy
