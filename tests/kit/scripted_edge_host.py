"""A host and a control as an edge sees them, over real NATS; a "VM" is a local TCP server and local processes.

What a test wants to see of waking, missing or moving VMs it writes into `ScriptedHost.vms` and `ScriptedControl.names`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from mags.kit.nats import settle
from mags.protocol import edge, messages, subjects
from mags.protocol.errors import Problem
from mags.protocol.messages import (
    Credit,
    Data,
    Eof,
    Hangup,
    Open,
    Opened,
    SessionEnd,
    Signal,
    Value,
    WindowSize,
)

SFTP_SERVER = "/usr/lib/openssh/sftp-server"
WINDOW = 256 << 10


@dataclass
class ScriptedVm:
    """`ports`: the guest's port -> a port of 127.0.0.1. A dial of a sleeping VM takes `wake_s`."""

    vm_id: str
    ports: dict[int, int] = field(default_factory=dict)
    asleep: bool = False
    wake_s: float = 0.0
    wakes: int = 0
    dials: int = 0
    problem: Problem | None = None
    edges: set[str] = field(default_factory=set)
    """Who has dialled it."""


class ScriptedHost:
    def __init__(self, nats: Client, home: Path, *, host_id: str = "h1", machine_id: str = "here") -> None:
        self.nats, self.home, self.host_id, self.machine_id = nats, home, host_id, machine_id
        self.vms: dict[str, ScriptedVm] = {}
        self.activity: list[edge.Activity] = []
        self.opened: list[Open] = []
        self.sessions: set[asyncio.Task[None]] = set()
        self._waking: dict[str, asyncio.Lock] = {}
        self._requests: set[asyncio.Task[None]] = set()

    def vm(self, vm_id: str, ports: dict[int, int] | None = None) -> ScriptedVm:
        self.vms[vm_id] = ScriptedVm(vm_id, ports or {})
        return self.vms[vm_id]

    async def start(self) -> None:
        await self.nats.subscribe(subjects.rpc(self.host_id, "*"), cb=self._on_request)
        await self.nats.subscribe(edge.activity(self.host_id, "*"), cb=self._on_activity)

    async def sleep(self, vm_id: str) -> None:
        """Put a VM to sleep and say so."""
        self.vms[vm_id].asleep = True
        event = messages.VmChanged(vm_id=vm_id, state="sleeping", at_ms=int(time.time() * 1000))
        await self.nats.publish(subjects.event(self.host_id), messages.encode(event))
        await settle(self.nats)

    async def fall_asleep(self, vm_id: str, cut: Callable[[], None]) -> int:
        """As a host does it: nobody is let in until edges have let go; then `cut` ends what the VM's programs have
        open, and it sleeps. How many requests are under way, for which it stays awake."""
        vm = self.vms[vm_id]
        async with self._waking.setdefault(vm_id, asyncio.Lock()):
            for instance in vm.edges:
                wish = messages.encode(edge.Release(vm_id=vm_id))
                reply = await self.nats.request(edge.release(instance), wish, timeout=10)
                busy = messages.open_answer(reply.data, edge.Released).busy
                if busy:
                    return busy
            cut()
            await self.sleep(vm_id)
            return 0

    async def aclose(self) -> None:
        for task in [*self.sessions, *self._requests]:
            task.cancel()
        await asyncio.gather(*self.sessions, *self._requests, return_exceptions=True)

    async def _on_activity(self, message: Msg) -> None:
        self.activity.append(messages.decode(message.data, edge.Activity))

    async def _on_request(self, message: Msg) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(message))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _serve(self, message: Msg) -> None:
        verb = message.subject.rpartition(".")[2]
        try:
            result: Value
            if verb == "dial":
                result = await self._dial(messages.decode(message.data, messages.Dial))
            elif verb == "open":
                result = await self._open(messages.decode(message.data, Open))
            else:
                raise Problem("not_available", f"{verb} is not scripted")
            await message.respond(messages.answer(result))
        except Problem as problem:
            await message.respond(messages.refusal(problem))

    async def _find(self, vm_id: str) -> ScriptedVm:
        vm = self.vms.get(vm_id)
        if vm is None:
            raise Problem("not_found", "There is no such VM here.")
        if vm.problem is not None:
            raise vm.problem
        async with self._waking.setdefault(vm_id, asyncio.Lock()):
            if vm.asleep:
                await asyncio.sleep(vm.wake_s)
                vm.asleep = False
                vm.wakes += 1
        return vm

    async def _dial(self, wish: messages.Dial) -> messages.Dialed:
        vm = await self._find(wish.vm_id)
        vm.dials += 1
        vm.edges.add(wish.edge)
        # Port 9 (discard) of loopback: nobody listens, as in a guest without the program.
        return messages.Dialed(address="127.0.0.1", port=vm.ports.get(wish.port, 9), machine_id=self.machine_id)

    async def _open(self, wish: Open) -> Opened:
        vm = await self._find(wish.vm_id)
        self.opened.append(wish)
        session = _Session(self.nats, wish, self.home, vm)
        await session.start()
        task = asyncio.get_running_loop().create_task(session.run())
        self.sessions.add(task)
        task.add_done_callback(self.sessions.discard)
        return Opened(window=WINDOW)


class _Session:
    """One process (or connection) behind a session, with credit both ways."""

    def __init__(self, nats: Client, wish: Open, home: Path, vm: ScriptedVm) -> None:
        self.nats, self.wish, self.home, self.vm = nats, wish, home, vm
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.credit = wish.window
        self.granted = asyncio.Event()

    async def start(self) -> None:
        self.subscription = await self.nats.subscribe(subjects.session_in(self.wish.session_id), cb=self._on_frame)
        await settle(self.nats)

    async def _on_frame(self, message: Msg) -> None:
        frame = messages.decode_frame(message.data)
        if isinstance(frame, Credit):
            self.credit += frame.amount
            self.granted.set()
        else:
            self.frames.put_nowait(frame)

    async def send(self, frame: Value) -> None:
        await self.nats.publish(subjects.session_out(self.wish.session_id), messages.encode(frame))

    async def run(self) -> None:
        try:
            end = await (self._connect() if self.wish.kind == "connect" else self._process())
            await self.send(end)
            await settle(self.nats)
        finally:
            await self.subscription.unsubscribe()

    async def _pump_out(self, stream: int, read: Callable[[int], Awaitable[bytes]]) -> None:
        while True:
            while self.credit <= 0:
                self.granted.clear()
                await self.granted.wait()
            data = await read(min(self.credit, 64 << 10))
            if not data:
                return
            self.credit -= len(data)
            await self.send(Data(stream=stream, data=data))

    async def _connect(self) -> SessionEnd:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.vm.ports.get(self.wish.port or 0, 9))
        except OSError:
            return SessionEnd(exit_code=1)

        async def take() -> None:
            while True:
                frame = await self.frames.get()
                if isinstance(frame, Hangup):
                    writer.transport.abort()
                    return
                if isinstance(frame, Eof):
                    writer.write_eof()
                if isinstance(frame, Data):
                    writer.write(frame.data)
                    await writer.drain()
                    await self.send(Credit(amount=len(frame.data)))

        taker = asyncio.ensure_future(take())
        try:
            await self._pump_out(1, reader.read)
        except OSError:
            pass
        finally:
            taker.cancel()
            writer.close()
        return SessionEnd(exit_code=0)

    async def _process(self) -> SessionEnd:
        wish = self.wish
        argv = ["/bin/sh", "-c", wish.command] if isinstance(wish.command, str) else (wish.command or ["/bin/sh", "-i"])
        if wish.kind == "sftp":
            argv = [SFTP_SERVER]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "PS1": "$ ", **wish.environment}
        if wish.pty is not None:
            return await self._terminal(argv, {**environment, "TERM": wish.pty.term})
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=self.home, env=environment, start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin and process.stdout and process.stderr

        async def take() -> None:
            while True:
                frame = await self.frames.get()
                if isinstance(frame, Hangup):
                    os.killpg(process.pid, signal.SIGKILL)
                elif isinstance(frame, Signal):
                    os.killpg(process.pid, frame.number)
                elif isinstance(frame, Eof):
                    process.stdin.close()  # type: ignore[union-attr]
                elif isinstance(frame, Data):
                    process.stdin.write(frame.data)  # type: ignore[union-attr]
                    try:
                        await process.stdin.drain()  # type: ignore[union-attr]
                    except OSError:
                        pass
                    await self.send(Credit(amount=len(frame.data)))

        taker = asyncio.ensure_future(take())
        try:
            await asyncio.gather(self._pump_out(1, process.stdout.read), self._pump_out(2, process.stderr.read))
            status = await process.wait()
        finally:
            taker.cancel()
            await _killed(process)
        return SessionEnd(exit_code=status if status >= 0 else 128 - status)

    async def _terminal(self, argv: list[str], environment: dict[str, str]) -> SessionEnd:
        assert self.wish.pty is not None
        master, slave = pty.openpty()
        _resize(master, self.wish.pty.rows, self.wish.pty.cols)
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=self.home, env=environment, start_new_session=True, stdin=slave, stdout=slave, stderr=slave,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        loop = asyncio.get_running_loop()

        async def read(size: int) -> bytes:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(master, _settle, ready)
            try:
                await ready
                return os.read(master, size)
            except OSError:
                return b""
            finally:
                loop.remove_reader(master)

        async def take() -> None:
            while True:
                frame = await self.frames.get()
                if isinstance(frame, Hangup):
                    os.killpg(process.pid, signal.SIGKILL)
                elif isinstance(frame, WindowSize):
                    _resize(master, frame.rows, frame.cols)
                elif isinstance(frame, Signal):
                    os.killpg(process.pid, frame.number)
                elif isinstance(frame, Data):
                    os.write(master, frame.data)
                    await self.send(Credit(amount=len(frame.data)))

        taker = asyncio.ensure_future(take())
        try:
            await self._pump_out(1, read)
            status = await process.wait()
        finally:
            taker.cancel()
            await _killed(process)
            os.close(master)
        return SessionEnd(exit_code=status if status >= 0 else 128 - status)


async def _killed(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await process.wait()


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _resize(master: int, rows: int, cols: int) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


class ScriptedControl:
    """`names`: (label, domain) -> what it resolves to. `keys`: (user, port) -> (public key, grant or problem)."""

    def __init__(self, nats: Client) -> None:
        self.nats = nats
        self.names: dict[tuple[str, str | None], edge.Resolved] = {}
        self.tokens: dict[str, str] = {}
        self.keys: dict[tuple[str, int | None], tuple[set[str], edge.SshGrant | Problem]] = {}
        self.ports: dict[int, str] = {}
        self.resolutions = self.authorisations = 0
        self.certificates: set[str] = set()

    async def start(self) -> None:
        self._subscription = await self.nats.subscribe(edge.CONTROL, queue=edge.CONTROL_QUEUE, cb=self._on_request)

    async def aclose(self) -> None:
        """Control is away from now on."""
        await self._subscription.unsubscribe()
        await settle(self.nats)

    def publish(self, label: str, vm_id: str, *, host_id: str = "h1", port: int = 8080, **more: Any) -> None:
        """Make `label` lead to a VM."""
        more.setdefault("subdomain", label)
        more.setdefault("name", f"job-of-{vm_id}")
        self.names[label, None] = edge.Resolved(status="ok", vm_id=vm_id, host_id=host_id, port=port, **more)

    async def changed(self, *subdomains: str, vms: tuple[str, ...] = (), ports: tuple[int, ...] = ()) -> None:
        value = edge.Changed(subdomains=list(subdomains), vms=list(vms), ports=list(ports))
        await self.nats.publish(edge.CHANGED, messages.encode(value))
        await settle(self.nats)

    async def _on_request(self, message: Msg) -> None:
        try:
            await message.respond(messages.answer(self._answer(message.subject, message.data)))
        except Problem as problem:
            await message.respond(messages.refusal(problem))

    def _answer(self, subject: str, data: bytes) -> Value:
        if subject == edge.RESOLVE:
            self.resolutions += 1
            wish = messages.decode(data, edge.Resolve)
            return self.names.get((wish.name, wish.domain), edge.Resolved(status="unknown"))
        if subject == edge.ASK:
            return edge.Asked(known=messages.decode(data, edge.Ask).host in self.certificates)
        if subject == edge.URL_AUTH:
            auth = messages.decode(data, edge.UrlAuth)
            if self.tokens.get(auth.token) != auth.subdomain:
                raise Problem("forbidden", "That token does not open this URL.")
            return messages.Done()
        if subject == edge.SSH_PORTS:
            return edge.SshPorts(ports=self.ports)
        if subject == edge.SSH_AUTH:
            self.authorisations += 1
            asked = messages.decode(data, edge.SshAuth)
            keys, grant = self.keys.get((asked.user, asked.port), (set(), Problem("not_found", "No such sandbox.")))
            if asked.public_key not in keys:
                raise Problem("forbidden", "That key opens nothing here.")
            if isinstance(grant, Problem):
                raise grant
            return grant
        raise Problem("not_available", f"{subject} is not scripted")
