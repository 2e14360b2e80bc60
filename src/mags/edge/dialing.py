"""Reaching a port of a VM: straight when its host is on our machine, through NATS when it is not. Dialling wakes; and
letting go of a VM that is to fall asleep.

Dialer.connect -> (asleep? the host wakes it) -> TCP to the VM's address, tried until something listens
               -> another machine: a `connect` session, with a socket pair between it and whoever reads
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from nats.aio.msg import Msg

from mags.edge.tasks import Tasks
from mags.hostclient import HostClient, Session
from mags.protocol import edge, messages, subjects
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.states import VmState

log = logging.getLogger("mags.edge.dialing")

WAKE_TIMEOUT = 60.0
"""Seconds in which a host answers a dial, waking included."""
CONNECT_TIMEOUT = 3.0
"""Seconds for one TCP handshake with a guest (28-54 ms in software emulation; a busy machine takes longer)."""
FIRST_PAUSE, LAST_PAUSE = 0.05, 0.5
"""Seconds between two tries while nothing listens."""
VERDICT = 0.2
"""Seconds in which a far guest says that nothing listens; one that keeps silent for so long has connected."""
DOWN = frozenset({VmState.SLEEPING, VmState.STOPPING, VmState.GONE, VmState.FAILED})
CHUNK = 64 << 10


class NotListening(Exception):
    """The VM is up, and nothing in it took the connection in time."""


@dataclass(eq=False, slots=True)
class _Attempt:
    vm_id: str
    stale: bool = False
    """The VM has been let go of since its host was asked: it may be asleep by now, so the answer is worth nothing."""


class Dialer:
    """One for a whole edge, called `instance` by hosts. `aclose` ends the sessions that it carries."""

    def __init__(self, hosts: HostClient, machine_id: str, instance: str) -> None:
        self._hosts, self._machine_id, self._instance = hosts, machine_id, instance
        self._asking: dict[tuple[str, int], asyncio.Task[messages.Dialed]] = {}
        self._attempts: set[_Attempt] = set()
        self._connecting: Counter[str] = Counter()
        """By VM: handshakes under way."""
        self._tasks = Tasks()
        self._listeners: list[Callable[[str, float], None]] = []
        self._holders: list[Callable[[str], int]] = []

    async def connect(
        self, host_id: str, vm_id: str, port: int, protocol: Callable[[], asyncio.Protocol], *, patience: float
    ) -> None:
        """Connect `protocol` to a port of the VM.

        `patience`: seconds to wait for something to listen, counted from when the VM is awake. Raises Problem (the
        host's, or `unavailable`) and NotListening.
        """
        attempt = _Attempt(vm_id)
        self._attempts.add(attempt)
        try:
            await self._connect(attempt, host_id, port, protocol, patience)
        finally:
            self._attempts.discard(attempt)

    async def _connect(
        self, attempt: _Attempt, host_id: str, port: int, protocol: Callable[[], asyncio.Protocol], patience: float
    ) -> None:
        vm_id = attempt.vm_id
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        pause = FIRST_PAUSE
        while True:
            attempt.stale = False
            dialed = await self._dial(host_id, vm_id, port)
            if attempt.stale:
                continue
            if deadline is None:
                deadline = loop.time() + patience
            self._connecting[vm_id] += 1
            try:
                if dialed.machine_id == self._machine_id:
                    async with asyncio.timeout(CONNECT_TIMEOUT):
                        await loop.create_connection(protocol, dialed.address, dialed.port)
                else:
                    await self._connect_far(host_id, vm_id, port, protocol)
                return
            except (OSError, TimeoutError, NotListening) as error:
                # Refused, or nobody there; it may also have fallen asleep again, or moved.
                if loop.time() + pause > deadline:
                    raise NotListening(f"nothing listens on port {port}") from error
            finally:
                self._connecting[vm_id] -= 1
                if not self._connecting[vm_id]:
                    del self._connecting[vm_id]
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LAST_PAUSE)

    def on_down(self, listener: Callable[[str, float], None]) -> None:
        """Tell `listener` the id of each VM that falls asleep or ends, and when it did (Unix time in ms)."""
        self._listeners.append(listener)

    def on_release(self, holder: Callable[[str], int]) -> None:
        """Ask `holder` to let go of a VM: it ends the connections on which nothing is under way, and answers how many
        others there are."""
        self._holders.append(holder)

    async def start(self) -> None:
        """Begin to hear which VMs fall asleep or end, and which are about to."""
        await self._hosts.connection.subscribe(subjects.EVENTS, cb=self._on_event)
        await self._hosts.connection.subscribe(edge.release(self._instance), cb=self._on_release)

    async def _on_release(self, message: Msg) -> None:
        try:
            vm_id = messages.decode(message.data, edge.Release).vm_id
        except Problem as problem:
            await message.respond(messages.refusal(problem))
            return
        # Its host lets nobody in from before it asked until it has decided: what it has answered before is void.
        for attempt in self._attempts:
            attempt.stale |= attempt.vm_id == vm_id
        self._asking = {key: task for key, task in self._asking.items() if key[0] != vm_id}
        busy = self._connecting[vm_id] + sum(holder(vm_id) for holder in self._holders)
        await message.respond(messages.answer(edge.Released(busy=busy)))

    async def _on_event(self, message: Msg) -> None:
        try:
            event = messages.decode_event(message.data)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return
        if isinstance(event, messages.VmChanged) and event.state in DOWN:
            for listener in self._listeners:
                listener(event.vm_id, event.at_ms)

    async def aclose(self) -> None:
        await self._tasks.aclose()

    async def _dial(self, host_id: str, vm_id: str, port: int) -> messages.Dialed:
        """Ask the host, each time: it lets nobody in while a VM falls asleep, and an address of before would."""
        # Fifty clients that wake one VM are one question.
        key = (vm_id, port)
        asking = self._asking.get(key)
        if asking is None:
            wish = messages.Dial(vm_id=vm_id, port=port, edge=self._instance)
            asking = self._tasks.start(
                self._hosts.request(host_id, "dial", wish, messages.Dialed, timeout=WAKE_TIMEOUT)
            )
            self._asking[key] = asking
            asking.add_done_callback(lambda task: self._asked(key, task))
        return await asyncio.shield(asking)

    def _asked(self, key: tuple[str, int], asking: asyncio.Task[messages.Dialed]) -> None:
        if self._asking.get(key) is asking:
            del self._asking[key]

    async def _connect_far(self, host_id: str, vm_id: str, port: int, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Give `protocol` one end of a socket pair; what it writes goes through a session, and comes so."""
        wish = messages.Open(vm_id=vm_id, session_id=new_id(), kind="connect", port=port)
        try:
            session = await Session.open(self._hosts, host_id, wish, timeout=WAKE_TIMEOUT)
        except Problem as problem:
            if problem.code == "guest_failed":
                raise NotListening(problem.message) from problem
            raise
        first = self._tasks.start(session.read())
        try:
            await asyncio.wait([first], timeout=VERDICT)
            if first.done() and first.result() is None and session.end is not None and session.end.exit_code != 0:
                raise NotListening(f"nothing listens on port {port}")
            near, far = socket.socketpair()
            try:
                reader, writer = await asyncio.open_connection(sock=far)
                await asyncio.get_running_loop().create_connection(protocol, sock=near)
            except BaseException:
                near.close()
                far.close()
                raise
        except BaseException:
            first.cancel()
            await session.close()
            raise
        self._tasks.start(carry(session, first, reader, writer))


async def carry(
    session: Session,
    first: asyncio.Task[messages.Data | None],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Bytes both ways between a session and a stream until either ends; both are closed then."""

    async def inwards() -> None:
        while data := await reader.read(CHUNK):
            if not await session.write(data):
                return

    async def outwards() -> None:
        frame = await first
        while frame is not None:
            writer.write(frame.data)
            await writer.drain()
            frame = await session.read()

    halves = [asyncio.ensure_future(inwards()), asyncio.ensure_future(outwards())]
    try:
        await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for half in halves:
            half.cancel()
        await asyncio.gather(*halves, first, return_exceptions=True)
        writer.close()
        await session.close()
