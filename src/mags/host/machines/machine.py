"""One VM of this host, as others see it: they ask, its driver (`driver`) acts. Wishes are judged at once (`wishes`) and
go through its inbox.

What it is made of: its record and `standing`, the `gate` to its guest and the `callers` that go past it, its scripts
(`roster`, `runs`), the time it is up (`uptime`), its sleep (`sleeper`, `waker`), its workspace (`keeper`), and the
tasks that belong to it (`attendants`).

A machine lives from a start or an adoption until its VM is gone and control knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mags.host.machines import idle
from mags.host.machines.attendants import Attendants
from mags.host.machines.callers import Callers
from mags.host.machines.cells import Cell
from mags.host.machines.dispatch import Dispatcher
from mags.host.machines.gate import Gate
from mags.host.machines.inbox import Cancel, Item, Run, Sleep, Stop, Wake
from mags.host.machines.keeper import Keeper
from mags.host.machines.parts import Parts
from mags.host.machines.patience import Patience
from mags.host.machines.record import Record
from mags.host.machines.roster import Roster
from mags.host.machines.runs import Runs
from mags.host.machines.sleeper import Sleeper
from mags.host.machines.standing import Standing
from mags.host.machines.uptime import Uptime
from mags.host.machines.waker import Waker
from mags.host.machines.wishes import Denied, Wish, judge
from mags.protocol.errors import Problem
from mags.protocol.messages import Adjust, Keep, Script, Started
from mags.protocol.states import VmState

USE_S = 120.0
"""How long an exec or a session waits until the VM is up."""


class Machine:
    def __init__(self, parts: Parts, record: Record) -> None:
        self.record, self.parts = record, parts
        self.inbox: asyncio.Queue[Item] = asyncio.Queue()
        """For the driver to take from; others `tell`."""
        self.stop_wished = asyncio.Event()
        self.gone = asyncio.Event()
        self.attendants = Attendants()
        self.standing = Standing(record, parts.records, parts.events, self.attendants)
        self.patience = Patience(record, self.standing.write)
        self.gate = Gate()
        self.callers = Callers(parts.client, self.vm_id)
        self.dispatcher = Dispatcher(parts)
        self.sleeper = Sleeper(self)
        self.waker = Waker(self)
        self.keeper = Keeper(self)
        self.uptime = Uptime(self)
        self.roster = Roster(parts, record, lambda: self.uptime.lifeline.why())
        self.runs = Runs(self)
        self._active = time.monotonic()

    @property
    def vm_id(self) -> str:
        return self.record.vm_id or ""

    @property
    def state(self) -> VmState:
        return self.record.state

    @property
    def is_put_away(self) -> bool:
        """Whether it sleeps, or nothing but what its disk held is left."""
        return self.state is VmState.SLEEPING or self.gone.is_set()

    @property
    def idle_timeout_s(self) -> float:
        return self.record.idle_timeout_s or self.parts.settings.idle_timeout_s

    @property
    def idle_s(self) -> float:
        """For how long there was no activity."""
        return time.monotonic() - self._active

    @property
    def sleepy(self) -> bool:
        """Whether it may fall asleep because nobody has anything of it."""
        parked = self.state is VmState.PARKED
        limit = self.parts.settings.park_timeout_s if parked else self.idle_timeout_s
        calm = not self.gate.inside and self.inbox.empty() and self.state in (VmState.RUNNING, VmState.PARKED)
        return calm and self.idle_s >= limit

    async def run(self, script: Script, *, keep: Keep | None = None) -> Started:
        """Give the VM a script; answers when it has it. The same job again gets the same answer. `keep` changes what
        becomes of the VM after it."""
        if not self.roster.knows(script.job_id):
            self._judge(Wish.RUN)
        answer, first = self.roster.answer(script.job_id)
        if first:
            self.tell(Run(script, answer, keep))
        return await asyncio.shield(answer)

    def cancel(self, job_id: str) -> None:
        """End one script. Harmless if it has ended."""
        if self._judge(Wish.CANCEL):
            self.tell(Cancel(job_id))

    async def stop(self) -> None:
        """End the VM; returns when it is gone, or nothing but what its disk held is left (`farewell`)."""
        self.stop_wished.set()
        if self._judge(Wish.STOP):
            self.tell(Stop())
        await self.gone.wait()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Cell]:
        """The VM, up, for an exec, a session, files or a connection; while this lasts it is active."""
        self._judge(Wish.USE)
        try:
            if not self.gate.is_open:
                self.tell(Wake())
            try:
                await self.gate.enter(USE_S)
            except TimeoutError:
                raise Problem("unavailable", "The VM is not up yet: try again in a moment.") from None
            self._judge(Wish.USE)
            yield self.uptime.need
        finally:
            self.gate.leave()
            self.touch()

    async def sleep(self, *, force: bool = False) -> None:
        """Returns when it sleeps. Raises Problem when it can't: it is in use, or may not, or there is no room.
        `force`: neither use nor wish keeps it awake."""
        if self._judge(Wish.SLEEP):
            reason = idle.keeps_awake(self.record, force=force)
            if reason is not None:
                raise reason
            answer = self.sleeper.wish(force=force)
            self.tell(Sleep())
            await asyncio.shield(answer)

    def doze(self) -> None:
        """It is idle."""
        if self.sleepy:
            self.tell(Sleep())

    def touch(self) -> None:
        """There was activity now."""
        self._active = time.monotonic()

    def adjust(self, wish: Adjust) -> None:
        """Change what can be changed of a VM. One that is never to sleep from now on wakes."""
        self._judge(Wish.USE)
        record = self.record
        record.idle_timeout_s = record.idle_timeout_s if wish.idle_timeout_s is None else wish.idle_timeout_s
        record.no_sleep = record.no_sleep if wish.no_sleep is None else wish.no_sleep
        record.startup_command = record.startup_command if wish.startup_command is None else wish.startup_command
        self.touch()
        self.parts.records.write(record)
        if wish.no_sleep:
            self.tell(Wake())

    def tell(self, item: Item) -> None:
        """A wish that was judged, or news, for the driver."""
        self.inbox.put_nowait(item)

    def _judge(self, wish: Wish) -> bool:
        """Whether to queue it; False: it is so already. Raises the problem when it can't be."""
        verdict = judge(self.state, wish, reason=self.record.reason)
        if isinstance(verdict, Denied):
            raise verdict.problem
        return verdict.queued
