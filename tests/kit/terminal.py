"""A terminal of a person: a program runs at it, keys are pressed, and what appears is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT = 90.0


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A program at a terminal of ours, as at a person's."""

    def __init__(self, rows: int = 24, cols: int = 80) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(rows, cols)
        self.seen = ""
        self._process: asyncio.subprocess.Process | None = None

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    async def start(self, argv: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
            env=environment,
        )
        os.close(self.slave)
        os.set_blocking(self.master, False)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    async def expect(self, pattern: str) -> re.Match[str]:
        """Read until the pattern has come; what came before it is dropped."""
        try:
            async with asyncio.timeout(TIMEOUT):
                while (match := re.search(pattern, self.seen)) is None:
                    try:
                        data = os.read(self.master, 1 << 16)
                    except BlockingIOError:
                        await asyncio.sleep(0.01)
                        continue
                    self.seen += data.decode(errors="replace")
        except (OSError, TimeoutError):
            raise AssertionError(f"{pattern!r} did not come, but: {self.seen!r}") from None
        self.seen = self.seen[match.end() :]
        return match

    async def wait(self) -> int:
        """Its exit status."""
        assert self._process is not None
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(OSError):
                self.seen += os.read(self.master, 1 << 16).decode(errors="replace")
            raise AssertionError(f"it does not end, but says: {self.seen!r}") from None

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        os.close(self.master)
