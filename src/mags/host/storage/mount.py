"""The JuiceFS mount: made, watched, healed, and taken over from an earlier process of ours.

    away -> mounted <-> (worker killed: juicefs itself starts another, open files go on being readable)
               |
               v
             dead (both processes killed: ENOTCONN) -> unmounted lazily -> mounted anew, `remounts` + 1

The juicefs processes are in a session of their own and outlive us: virtual machines read their disks through the
mount, so a restart of the host program must not take it away.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
from pathlib import Path

from mags.host.storage import juicefs
from mags.host.storage.errors import StorageError, StorageUnavailable
from mags.host.storage.layout import ROOT_INODE
from mags.host.storage.threads import Threads
from mags.kit.files import write_atomic
from mags.kit.process import CommandError, run

log = logging.getLogger("mags.storage.mount")

START_TIMEOUT = 30.0
UNMOUNT_TIMEOUT = 10.0
"""Seconds that an unmount may linger before the processes are killed."""
CHECK_INTERVAL = 1.0
CHECK_TIMEOUT = 30.0
HEAL_DELAYS = (0.2, 1.0, 3.0, 10.0)
LOG_LIMIT = 8 << 20
HANDOVER = "/tmp/fuse_fd_comm.{}"
"""A socket of JuiceFS's watchdog, by its pid; one that is killed leaves it behind."""


class Mount:
    """One mounted volume. Once it was made anew under us, descriptors from before are dead for ever."""

    def __init__(self, volume: juicefs.Volume, mount_point: Path) -> None:
        self.volume, self.point = volume, mount_point
        self.remounts = 0
        self.trouble = ""
        """Empty, or a sentence on why the mount cannot be used now."""
        self._log_file = volume.directory / "juicefs.log"
        self._record = volume.directory / "mount.json"
        self._threads = Threads(2, "mount")
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Mount, or take over a living mount. StorageUnavailable with juicefs's last words if it does not come.

        A living one that has other keys than the settings is made anew: VMs stand still for a moment.
        """
        if not (await self._works() and self._has_our_keys()):
            await self._mount()
        self._watcher = asyncio.create_task(self._watch(), name="juicefs-mount")

    async def leave(self) -> None:
        """Stop watching and leave the mount to the next process of ours."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        self._threads.close()

    async def stop(self) -> None:
        """Unmount and end the processes, by force if they linger. Idempotent."""
        await self.leave()
        await self._unmount()

    async def _watch(self) -> None:
        attempt = 0
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            try:
                if await self._works():
                    self.trouble, attempt = "", 0
                    continue
                log.warning("the mount at %s is gone; mounting it anew", self.point)
                self.trouble = "The volume of the workspaces is being mounted anew."
                await self._mount()
                self.remounts += 1
                self.trouble = ""
            except (StorageError, OSError) as error:
                if str(error) != self.trouble:
                    log.error("%s", error)
                self.trouble = str(error)
                await asyncio.sleep(HEAL_DELAYS[min(attempt, len(HEAL_DELAYS) - 1)])
                attempt += 1

    async def _works(self) -> bool:
        """Whether the volume is mounted and its processes answer. StorageUnavailable if they take too long."""
        try:
            here = await self._threads.run_within(CHECK_TIMEOUT, self.point.stat)
            above = self.point.parent.stat()
        except OSError as error:
            if error.errno in (errno.ENOTCONN, errno.ENOENT, errno.ECONNABORTED):
                return False
            raise StorageUnavailable(f"The volume of the workspaces does not work: {error}.") from error
        return here.st_dev != above.st_dev and here.st_ino == ROOT_INODE

    async def _mount(self) -> None:
        await self._unmount()
        self.point.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.volume.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        pid = self._spawn(juicefs.mount_command(self.volume, self.point))
        write_atomic(self._record, json.dumps({"pid": pid, "started": _started(pid)}).encode())
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not await self._works():
                    if _ended(pid):
                        raise StorageUnavailable(f"juicefs did not mount the volume: {self._last_words()}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            await self._unmount()
            raise StorageUnavailable(
                f"juicefs did not mount the volume within {START_TIMEOUT:g} s: {self._last_words()}"
            ) from error
        except BaseException:
            await self._unmount()
            raise

    def _spawn(self, argv: list[str]) -> int:
        if self._log_file.exists() and self._log_file.stat().st_size > LOG_LIMIT:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))
        output = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
            actions += [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)]  # type: ignore[misc]
            # posix_spawn and not asyncio: its transports kill their child when the event loop ends.
            return os.posix_spawn(argv[0], argv, self.volume.environment(), file_actions=actions, setsid=True)
        finally:
            os.close(output)

    async def _unmount(self) -> None:
        """Unmount whatever is mounted at the point and end the recorded processes."""
        leader, pids = self._leader(), self._processes()
        if self._is_listed():
            try:
                await run(["umount", self.point], timeout=UNMOUNT_TIMEOUT)
            except CommandError:  # busy, dead, or its last upload lingers
                await run(["umount", "-l", self.point], timeout=UNMOUNT_TIMEOUT, check=False)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (UNMOUNT_TIMEOUT if pids else 0)
        asked = False
        while pids := [pid for pid in pids if not _ended(pid)]:
            if not asked:
                _signal(pids, signal.SIGTERM)
                asked = True
            if loop.time() > deadline:
                _signal(pids, signal.SIGKILL)
            await asyncio.sleep(0.05)
        if leader:
            Path(HANDOVER.format(leader)).unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def _has_our_keys(self) -> bool:
        """Whether the living processes were started with the keys and passwords of our settings."""
        for pid in self._processes():
            try:
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(f"{name}={value}".encode() not in words for name, value in self.volume.secrets().items()):
                return False
        return True

    def _is_listed(self) -> bool:
        """Whether the kernel has a mount here; works when the mount itself is dead."""
        # Only the parent is resolved: a stat of a dead mount fails.
        wanted = os.fsencode(self.point.parent.resolve() / self.point.name)
        with open("/proc/self/mounts", "rb") as mounts:
            return any(line.split(b" ")[1].replace(b"\\040", b" ") == wanted for line in mounts)

    def _leader(self) -> int:
        """The juicefs process of our record, dead or alive; 0 if there is none."""
        try:
            record = json.loads(self._record.read_bytes())
            leader, started = int(record["pid"]), int(record["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        return leader if _started(leader) in (started, 0) else 0  # the number belongs to somebody else by now

    def _processes(self) -> list[int]:
        """The leader of the session and those in it."""
        leader = self._leader()
        if not leader:
            return []
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and _session(int(entry.name)) == leader:
                found.append(int(entry.name))
        return found

    def _last_words(self) -> str:
        try:
            with self._log_file.open("rb") as file:
                file.seek(max(0, self._log_file.stat().st_size - 4000))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return "no log"
        telling = [line for line in lines if "<FATAL>" in line or "<ERROR>" in line] or lines
        return (telling[-1] if telling else "it said nothing") + f" (see {self._log_file})"


def _stat(pid: int) -> list[bytes]:
    """The fields of proc(5)'s stat after the command's name: state, ppid, pgrp, session, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def _started(pid: int) -> int:
    """Clock ticks from boot to the start of the process; 0 if there is none."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _session(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[3]) if fields else 0


def _ended(pid: int) -> bool:
    """Whether the process has ended; reaps it if it is our child."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        fields = _stat(pid)
        return not fields or fields[0] == b"Z"


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
