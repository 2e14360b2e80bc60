"""Giving a script to a guest: for the first one together with all that the guest must be told, in one round trip."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Literal

from mags.host.guest import Jfs, Process
from mags.host.machines import scripts, welcome
from mags.host.machines.cells import Cell
from mags.host.machines.parts import Parts
from mags.host.machines.roster import seen
from mags.protocol.messages import Script
from mags.protocol.states import VmState

Origin = Literal["pool", "clone", "cold"]


class Dispatcher:
    """Knows whether the guest was told yet; a cell from the pool stood still until it was taken."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._born = time.monotonic()
        self.fresh = True
        """Nothing was given to the guest yet."""
        self.dispatched = False
        """Whether a script was ever given to the guest: it must not be given again."""
        self.origin: Origin = "clone"
        self.jfs: Jfs | None = None
        """What the guest is to mount on /jfs."""
        self.boot_ms = 0
        """From the start's arrival until the guest had its script."""
        self._resuming: asyncio.Future[None] | None = None

    def resume(self, cell: Cell) -> None:
        """The cell was taken from the pool: let it go on, beside all that comes before its guest has a script. Until
        then nobody's code is in it, and its record says that it waits."""
        self.origin = "pool"
        self._resuming = asyncio.ensure_future(cell.vm.resume())
        self._resuming.add_done_callback(seen)

    def kind(self, state: VmState) -> Literal["pool", "clone", "cold", "parked", "warm"]:
        """How a script that comes now finds its VM."""
        if self.fresh:
            return self.origin
        return "parked" if state is VmState.PARKED else "warm"

    def adopted(self) -> None:
        """The guest was told by an earlier host program."""
        self.fresh, self.dispatched = False, True

    async def give(self, cell: Cell, script: Script, environment: Mapping[str, str]) -> Process | None:
        """The script's process; None when there is nothing to run. Raises Problem, GuestError, ChannelClosed."""
        wish = scripts.wish(script)
        if not self.fresh:
            if script.files:
                await self._parts.uploads.put(cell.channel, script.files)
            return await cell.channel.exec(wish) if wish is not None else None
        configure = welcome.first(environment, jfs=self.jfs, disk_bytes=cell.vm.disk_bytes)
        if self._resuming is not None:
            configure = welcome.taken(environment)
        if wish is not None and not script.files:
            _, (_, process) = await asyncio.gather(self._resumed(), cell.channel.configure_and_exec(configure, wish))
            self._given()
            return process
        await asyncio.gather(self._resumed(), cell.channel.configure(configure))
        if script.files:
            await self._parts.uploads.put(cell.channel, script.files)
        self._given()
        return await cell.channel.exec(wish) if wish is not None else None

    def _given(self) -> None:
        self.fresh = False
        self.boot_ms = round((time.monotonic() - self._born) * 1000)

    async def _resumed(self) -> None:
        if self._resuming is not None:
            await self._resuming
