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
from mags.protocol.messages import Script
from mags.protocol.states import VmState

Origin = Literal["pool", "clone", "cold"]


class Dispatcher:
    """Knows whether the guest was told yet; a cell from the pool stands still until then."""

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
        pooled = self.origin == "pool"
        configure = welcome.taken(environment) if pooled else welcome.first(environment, jfs=self.jfs)
        if wish is not None and not script.files:
            _, (_, process) = await asyncio.gather(
                _resume(cell, pooled), cell.channel.configure_and_exec(configure, wish)
            )
            self._given()
            return process
        await asyncio.gather(_resume(cell, pooled), cell.channel.configure(configure))
        if script.files:
            await self._parts.uploads.put(cell.channel, script.files)
        self._given()
        return await cell.channel.exec(wish) if wish is not None else None

    def _given(self) -> None:
        self.fresh = False
        self.boot_ms = round((time.monotonic() - self._born) * 1000)


async def _resume(cell: Cell, paused: bool) -> None:
    if paused:
        await cell.vm.resume()
