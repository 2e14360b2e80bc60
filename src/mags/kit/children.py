"""A long-running child program that is started, watched, started again when it dies, and ended with us.

    starting -> up -> (died) -> waiting -> starting ...
                 \\-> stopped

The child gets SIGTERM when the thread that started it dies (PR_SET_PDEATHSIG), so that a supervisor killed with -9
leaves nothing behind; its output goes to a log file of bounded size.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from mags.kit import pidfiles

log = logging.getLogger("mags.children")

PR_SET_PDEATHSIG = 1
LOG_LIMIT = 8 << 20
"""Bytes after which a child's log is moved to NAME.1 at its next start."""
FIRST_DELAY, LAST_DELAY = 0.2, 10.0
"""Seconds before the first and the later restarts; doubled each time, reset after a minute of life."""

_libc = ctypes.CDLL(None, use_errno=True)


class ChildFailed(Exception):
    """A child did not become ready: the sentence names its log."""


def die_with_parent() -> None:
    """To be called in the child between fork and exec."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One supervised program.

    `ready` is polled until it returns True (each time after a start); `on_restart` is told each time the child had
    to be started again. `pass_fds` stay open in it: a listening socket of ours outlives the child that serves it.
    `pid_file` names it while it runs (kit.pidfiles), for whoever has to end it if we can't.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log_file: Path,
        ready: Callable[[], Awaitable[bool]],
        env: Mapping[str, str] | None = None,
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
        on_restart: Callable[[], None] | None = None,
        pass_fds: Sequence[int] = (),
        pid_file: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log_file = log_file
        self.restarts = 0
        self._ready, self._env = ready, env
        self._start_timeout, self._stop_timeout = start_timeout, stop_timeout
        self._on_restart, self._pass_fds, self._pid_file = on_restart, tuple(pass_fds), pid_file
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it is ready; ChildFailed (with the end of its log) if it is not in time."""
        self._stopping = False
        await self._launch()
        try:
            await self._wait_ready()
        except BaseException:
            await self.stop()
            raise
        self._watcher = asyncio.create_task(self._watch(), name=f"child-{self.name}")

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL to its process group after the deadline. Idempotent."""
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(self._stop_timeout):
                    await process.wait()
            except TimeoutError:
                _signal_group(process.pid, signal.SIGKILL)
                await process.wait()
        self._process = None
        if self._pid_file is not None:
            self._pid_file.unlink(missing_ok=True)

    async def _launch(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_LIMIT:
            self.log_file.replace(self.log_file.with_name(self.log_file.name + ".1"))
        with self.log_file.open("ab") as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(self._env) if self._env is not None else None,
                    start_new_session=True,
                    pass_fds=self._pass_fds,
                    preexec_fn=die_with_parent,
                )
            except FileNotFoundError as error:
                raise ChildFailed(f"{self.name}: {self.argv[0]} is not installed.") from error
        if self._pid_file is not None:
            pidfiles.write(self._pid_file, self._process.pid)

    async def _wait_ready(self) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(self._start_timeout):
                while not await self._ready():
                    if self._process.returncode is not None:
                        raise ChildFailed(
                            f"{self.name} ended at its start with status {self._process.returncode}: "
                            f"{self._last_words()} (see {self.log_file})"
                        )
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise ChildFailed(
                f"{self.name} was not ready within {self._start_timeout:g} s: "
                f"{self._last_words()} (see {self.log_file})"
            ) from error

    def _last_words(self) -> str:
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, self.log_file.stat().st_size - 2000))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return "no log"
        return " | ".join(lines[-3:]) or "it said nothing"

    async def _watch(self) -> None:
        delay = FIRST_DELAY
        while True:
            assert self._process is not None
            born = asyncio.get_running_loop().time()
            status = await self._process.wait()
            if self._stopping:
                return
            if asyncio.get_running_loop().time() - born > 60:
                delay = FIRST_DELAY
            log.warning("%s ended with status %s; starting it again in %.1f s", self.name, status, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)
            self.restarts += 1
            try:
                await self._launch()
                await self._wait_ready()
            except (ChildFailed, OSError) as error:  # OSError: no room for a process, or for its log
                log.error("%s can't be started again yet: %s", self.name, error)
                if self._process is not None and self._process.returncode is None:
                    _signal_group(self._process.pid, signal.SIGKILL)
                continue
            if self._on_restart is not None:
                self._on_restart()


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass
