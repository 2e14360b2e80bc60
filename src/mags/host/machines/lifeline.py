"""Whether a VM lives: its process, its channel, and an answer now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mags.host.config import Settings
from mags.host.guest import ChannelClosed, GuestError
from mags.host.machines.cells import Cell

log = logging.getLogger(__name__)

CONSOLE_LINES = 5
DEATH_S = 2.0
"""After the channel has ended: how long to wait for the hypervisor's end, which says why."""


class Lifeline:
    """`died` is called once, with the sentence that says why."""

    def __init__(self, settings: Settings, died: Callable[[str], None]) -> None:
        self._settings, self._died = settings, died
        self._reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def watch(self, cell: Cell) -> None:
        """Until the VM has ended, or the guest has broken the protocol."""
        died, closed = cell.vm.died, cell.channel.closed
        await asyncio.wait({died, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not died.done():
            await asyncio.wait({died}, timeout=DEATH_S)
        reason = died.result() if died.done() else closed.result()
        if self._reason.done():
            return  # we have ended it
        words = (await cell.vm.console()).strip().splitlines()[-CONSOLE_LINES:] if died.done() else []
        log.warning("VM %s ended: %s Its console: %s", cell.record.handle, reason, " | ".join(words) or "(empty)")
        self._end(f"The VM ended unexpectedly: {reason}")

    async def pulse(self, cell: Cell) -> None:
        """Until the guest has not answered for long."""
        settings = self._settings
        while True:
            await asyncio.sleep(settings.pulse_s)
            stalls = cell.vm.stall.count
            try:
                async with asyncio.timeout(settings.pulse_deadline_s):
                    await cell.channel.ping()
            except ChannelClosed:
                return
            except TimeoutError:
                await cell.vm.listen()
                if cell.vm.stall.reason or cell.vm.stall.count != stalls:
                    continue  # its disk is away: it is not to blame
                self._end(f"The VM has failed: it did not answer for {settings.pulse_deadline_s:g} s")
                return
            except GuestError as error:
                self._end(f"The VM has failed: {error}")
                return

    async def explain(self, error: Exception) -> str:
        """Why the guest is gone, as far as that is known a moment after a request has failed for it."""
        try:
            async with asyncio.timeout(DEATH_S + 1):
                return await self.why()
        except TimeoutError:
            return str(error)

    def fail(self, reason: str) -> None:
        """It can't be used any more, as others have found."""
        self._end(reason)

    def cut(self, reason: str) -> None:
        """We end the VM ourselves; nobody is called."""
        if not self._reason.done():
            self._reason.set_result(reason)

    async def why(self) -> str:
        """Waits until it has died."""
        return await asyncio.shield(self._reason)

    def _end(self, reason: str) -> None:
        if not self._reason.done():
            self._reason.set_result(reason.rstrip(".") + ".")
            self._died(self._reason.result())
