"""Reaching a port of a VM: straight when its host is on our machine, through NATS when it is not. Dialling wakes.

Dialer.connect -> (asleep? the host wakes it) -> TCP to the VM's address, tried until something listens
               -> another machine: a `connect` session, with a socket pair between it and whoever reads
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg

from mags.edge.tasks import Tasks
from mags.hostclient import HostClient, Session
from mags.protocol import messages, subjects
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


class Dialer:
    """One for a whole edge. `aclose` ends the sessions that it carries."""

    def __init__(self, hosts: HostClient, machine_id: str) -> None:
        self._hosts, self._machine_id = hosts, machine_id
        self._asking: dict[tuple[str, int], asyncio.Task[messages.Dialed]] = {}
        self._tasks = Tasks()
        self._listeners: list[Callable[[str, float], None]] = []

    async def connect(
        self, host_id: str, vm_id: str, port: int, protocol: Callable[[], asyncio.Protocol], *, patience: float
    ) -> None:
        """Connect `protocol` to a port of the VM.

        `patience`: seconds to wait for something to listen, counted from when the VM is awake. Raises Problem (the
        host's, or `unavailable`) and NotListening.
        """
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        pause = FIRST_PAUSE
        while True:
            dialed = await self._dial(host_id, vm_id, port)
            if deadline is None:
                deadline = loop.time() + patience
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
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LAST_PAUSE)

    def on_down(self, listener: Callable[[str, float], None]) -> None:
        """Tell `listener` the id of each VM that falls asleep or ends, and when it did (Unix time in ms)."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Begin to hear which VMs fall asleep or end."""
        await self._hosts.connection.subscribe(subjects.EVENTS, cb=self._on_event)

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
            wish = messages.Dial(vm_id=vm_id, port=port)
            asking = self._tasks.start(
                self._hosts.request(host_id, "dial", wish, messages.Dialed, timeout=WAKE_TIMEOUT)
            )
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)

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
