"""A shell, a command or SFTP in the VM, behind a channel of type "session" (RFC 4254, 6)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping

import asyncssh

from mags.edge.ssh.access import Access
from mags.edge.ssh.channel import Flow
from mags.edge.tasks import Tasks
from mags.hostclient import Session
from mags.protocol.errors import Problem
from mags.protocol.ids import ENVIRONMENT_NAME, new_id
from mags.protocol.messages import Open, Pty

log = logging.getLogger("mags.edge.ssh")

FAILED = 255
"""Exit status when the platform failed, as ssh's own."""
VARIABLES, ENVIRONMENT_LIMIT = 256, 64 << 10
"""How many variables a client may set, and bytes of all of them; more are dropped."""
LARGEST_TERMINAL = 10_000


class Environment(dict[bytes, bytes]):
    """What a client sets, as far as there is room; asyncssh takes any number. Setting one again takes room again."""

    def __init__(self) -> None:
        super().__init__()
        self._room = ENVIRONMENT_LIMIT

    def __setitem__(self, name: bytes, value: bytes) -> None:
        self._room -= len(name) + len(value)
        if self._room >= 0 and len(self) < VARIABLES:
            super().__setitem__(name, value)


class Shell(Flow, asyncssh.SSHServerSession[bytes]):
    """One channel. asyncssh calls the `*_requested` methods, then `session_started`."""

    def __init__(self, access: Access, tasks: Tasks) -> None:
        super().__init__(tasks)
        self._access = access
        self._pty: Pty | None = None
        self._command: str | None = None
        self._sftp = False
        self._controls: asyncio.Queue[tuple[int, int] | int] = asyncio.Queue(64)

    # --- called by asyncssh ---------------------------------------------------------------------------------------

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        cols, rows = _size(term_size[0], term_size[1])
        self._pty = Pty(rows=rows, cols=cols, term=term_type[:64] or "xterm-256color")
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self._sftp = subsystem == "sftp"
        return self._sftp

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        cols, rows = _size(width, height)
        if self._pty is not None:
            self._pty.rows, self._pty.cols = rows, cols
            self._control((rows, cols))

    def signal_received(self, signal: str) -> None:
        number = _signal_number(signal)
        if number is not None:
            self._control(number)

    def break_received(self, msec: int) -> bool:
        self._control(signal.SIGINT.value)
        return True

    # --- inside ---------------------------------------------------------------------------------------------------

    def _control(self, wish: tuple[int, int] | int) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # a client that floods us loses what it floods us with
            self._controls.put_nowait(wish)

    def _wish(self, vm_id: str, user: str) -> Open:
        if self._sftp:
            return Open(vm_id=vm_id, session_id=new_id(), kind="sftp", user=user)
        return Open(
            vm_id=vm_id,
            session_id=new_id(),
            kind="exec",
            command=self._command,
            environment=_environment(self._channel.get_environment_bytes()),
            user=user,
            pty=self._pty,
        )

    async def _serve(self) -> None:
        code = FAILED
        try:
            async with await self._access.open(self._wish) as session:
                controls = asyncio.ensure_future(self._steer(session))
                try:
                    await self._carry(session)
                finally:
                    controls.cancel()
                    await asyncio.gather(controls, return_exceptions=True)
                if session.end is not None and session.end.exit_code is not None:
                    code = session.end.exit_code
        except Problem as problem:
            self._say(problem.message)
        except Exception:
            log.exception("a session failed")
            self._say("Something went wrong on our side.")
        self._channel.exit(code if 0 <= code < FAILED else FAILED)

    def _say(self, sentence: str) -> None:
        if not self._sftp:
            end = "\r\n" if self._pty is not None else "\n"
            self._channel.write_stderr(f"mags: {sentence}{end}".encode())

    async def _steer(self, session: Session) -> None:
        while True:
            wish = await self._controls.get()
            if isinstance(wish, tuple):
                await session.resize(*wish)
            else:
                await session.signal(wish)

    def _write(self, stream: int, data: bytes) -> None:
        if stream == 2:
            self._channel.write_stderr(data)
        else:
            self._channel.write(data)


def _size(cols: int, rows: int) -> tuple[int, int]:
    """A terminal's size as a guest can take it; 0 means unknown (RFC 4254, 6.2)."""
    return min(cols, LARGEST_TERMINAL) or 80, min(rows, LARGEST_TERMINAL) or 24


def _signal_number(name: str) -> int | None:
    """The number of a signal named without SIG (RFC 4254, 6.10)."""
    try:
        return signal.Signals[f"SIG{name.upper()}"].value
    except KeyError:
        return None


def _environment(given: Mapping[bytes, bytes]) -> dict[str, str]:
    """What a client wants set, without names and values that no environment can hold."""
    found: dict[str, str] = {}
    for name, value in given.items():
        key, text = name.decode(errors="replace"), value.decode(errors="replace")
        if ENVIRONMENT_NAME.fullmatch(key) and "\0" not in text:
            found[key] = text
    return found
