"""Which hosts are there, from what they say of themselves every 2 s.

    (heard) live --silent for half of LOST_AFTER--> suspect --silent for LOST_AFTER--> lost
              ^-----------------------------------heard-------------------------------'

Silence is counted from when we began to listen, also after our own connection to NATS was away or we stood still
ourselves: who could not hear declares nobody lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from mags.kit.nats import settle
from mags.protocol import subjects
from mags.protocol.ids import HOST_ID
from mags.protocol.messages import Heard, Presence, encode

LOST_AFTER = 30.0
"""Seconds of silence, unless it is set otherwise."""
LOOK_S = 1.0
"""How often we make sure that we hear at all."""
DEAF_AFTER = 5.0
"""Seconds without such a look: this program was frozen, or too busy to hear anybody."""

Listener = Callable[["HostView", bool], None]
"""Called at each presence; True when what the host has must be looked at anew: its program has started since, it was
never heard before, or it was lost and its VMs were given up meanwhile."""


class HostState(StrEnum):
    LIVE = "live"
    SUSPECT = "suspect"
    LOST = "lost"


@dataclass(slots=True)
class HostView:
    """The last presence of one host and when it came (monotonic seconds)."""

    presence: Presence
    heard: float

    @property
    def host_id(self) -> str:
        return self.presence.host_id


def state_at(silence: float, lost_after: float = LOST_AFTER) -> HostState:
    """The state of a host that has been silent for so many seconds."""
    if silence >= lost_after:
        return HostState.LOST
    return HostState.SUSPECT if silence >= lost_after / 2 else HostState.LIVE


class Hosts:
    """The presence watcher. `start` once; `stop` at the end."""

    def __init__(
        self, connection: Client, *, lost_after: float = LOST_AFTER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lost_after = lost_after
        self._connection, self._clock = connection, clock
        self._views: dict[str, HostView] = {}
        self._subscription: Subscription | None = None
        self._listeners: list[Listener] = []
        self._began = clock()
        self._looked = time.monotonic()
        self._looking: asyncio.Task[None] | None = None
        self._reconnects = 0
        self._decoder = msgspec.msgpack.Decoder(Presence)

    async def start(self) -> None:
        self._began = self._clock()
        self._reconnects = self._connection.stats["reconnects"]
        self._subscription = await self._connection.subscribe(subjects.PRESENCE, cb=self._on_message)
        await settle(self._connection)
        self._looked = time.monotonic()
        self._looking = asyncio.create_task(self._look(), name="presence-look")

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            self._looking = None
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            if not self._connection.is_closed:
                await subscription.unsubscribe()

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def state(self, host_id: str) -> HostState:
        """A host that was never heard counts as silent since we began to listen."""
        self._notice_deafness()
        view = self._views.get(host_id)
        heard = max(view.heard, self._began) if view is not None else self._began
        return state_at(self._clock() - heard, self.lost_after)

    def _notice_deafness(self) -> None:
        reconnects = self._connection.stats["reconnects"]
        if reconnects != self._reconnects or not self._connection.is_connected:
            self._reconnects = reconnects
            self._began = self._clock()
        if self._looking is not None and time.monotonic() - self._looked > DEAF_AFTER:
            self._looked = time.monotonic()
            self._began = self._clock()

    async def _look(self) -> None:
        while True:
            self._notice_deafness()
            self._looked = time.monotonic()
            await asyncio.sleep(LOOK_S)

    def get(self, host_id: str) -> HostView | None:
        return self._views.get(host_id)

    def all(self) -> list[HostView]:
        """Every host ever heard, by id."""
        return [self._views[key] for key in sorted(self._views)]

    def live(self) -> list[HostView]:
        return [view for view in self.all() if self.state(view.host_id) is HostState.LIVE]

    def hear(self, presence: Presence) -> None:
        """Take one presence in."""
        before = self._views.get(presence.host_id)
        returns = before is not None and self.state(presence.host_id) is HostState.LOST
        view = HostView(presence, self._clock())
        self._views[presence.host_id] = view
        anew = before is None or returns or before.presence.boot != presence.boot
        for listener in self._listeners:
            listener(view, anew)

    async def _on_message(self, message: Msg) -> None:
        try:
            presence = self._decoder.decode(message.data)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return
        if HOST_ID.fullmatch(presence.host_id) and message.subject == subjects.presence(presence.host_id):
            self.hear(presence)
            if message.reply:
                await self._connection.publish(message.reply, encode(Heard(lost_after_s=self.lost_after)))
