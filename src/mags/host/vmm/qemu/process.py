"""QEMU as a process: how it is started, watched and ended.

Its sockets are made and listened on by us and inherited, so a connection never has to be tried twice, and QEMU needs
no right to any path. It runs in a session and a network namespace of its own, in an empty chroot, as the VM's user.
Its standard error is a FIFO in the VM's directory that QEMU itself holds open for reading: what does not fit
(64 KiB) is dropped, nobody has to drain it, and it can be read after our own restart.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import shutil
import signal
import socket
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from mags.host.vmm.driver import ProcessGroup, VmmError

T = TypeVar("T")

MONITOR, AGENT, STDERR = "qmp.sock", "agent.sock", "stderr"
"""Names in a VM's directory."""
ROOT = "root"
"""The empty directory that QEMU is chrooted to."""
FIRST_FREE = 64
"""Descriptors that are to be inherited are moved above this number, then down to where the child expects them."""
END_TIMEOUT = 30.0
"""Seconds for the kernel to end a killed process and free its memory."""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class Process:
    """A running QEMU, our child or one that an earlier host program left."""

    def __init__(self, pid: int, directory: Path) -> None:
        """ProcessLookupError if there is no such process."""
        self.pid = pid
        self.started = start_time(pid)
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.signal: int | None = None
        """What ended it, if a signal did and it was our child."""
        self._stderr = os.open(directory / STDERR, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._pidfd = os.pidfd_open(pid)
        except BaseException:
            os.close(self._stderr)
            raise
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Harmless when it is. VmmError if it is not after END_TIMEOUT seconds: it
        will be as soon as the kernel lets go of it, as when a mount that it reads from answers."""
        if not self.died.done():
            with suppress(ProcessLookupError):  # an adopted one, reaped before we heard of its end
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await asyncio.wait((self.died,), timeout=END_TIMEOUT)
            if not self.died.done():
                raise VmmError(f"QEMU was killed and did not end within {END_TIMEOUT:g} s.")

    def release(self) -> None:
        """Stop watching; the process goes on."""
        if not self.died.done():
            self._close("no longer watched")

    async def unless_dead(self, work: Coroutine[object, object, T]) -> T:
        """The result of `work`; VmmError with QEMU's own words if it ends first."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self.died), return_when=asyncio.FIRST_COMPLETED)
            if self.died.done() and not task.done():
                raise VmmError(self.died.result())
            try:
                return task.result()
            except VmmError:
                # A monitor that closes tells less than the process that ended.
                await asyncio.wait((self.died,), timeout=0.2)
                if self.died.done():
                    raise VmmError(self.died.result()) from None
                raise
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _ended(self) -> None:
        reason = "QEMU ended"
        try:
            status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            status = None  # not our child: an adopted one, which init reaps
        if status is not None and status.si_code == os.CLD_EXITED:
            reason = f"QEMU ended with status {status.si_status}"
        elif status is not None:
            self.signal = status.si_status
            reason = f"QEMU was ended by signal {status.si_status}"
        words = self._last_words()
        self._close(f"{reason}: {words}" if words else f"{reason}.")

    def _close(self, reason: str) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        os.close(self._stderr)
        self.died.set_result(reason)

    def _last_words(self) -> str:
        try:
            text = os.read(self._stderr, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-3:])


class Inheritance:
    """Descriptors for a child, under the numbers that it will see them as (3, 4, ...)."""

    def __init__(self) -> None:
        self.sources: list[int] = []

    def add(self, descriptor: int) -> int:
        self.sources.append(descriptor)
        return 2 + len(self.sources)


def spawn(
    command: list[str],
    directory: Path,
    inherited: Inheritance,
    *,
    namespace: Path | None,
    group: ProcessGroup | None,
) -> Process:
    """Start QEMU. VmmError when it cannot be started; QEMU's own refusal comes later, as its death."""
    enter = ["/usr/bin/nsenter", f"--net={namespace}"] if namespace else ["/usr/bin/unshare", "--net"]
    argv = [*enter, "--", "/usr/bin/setpriv", "--no-new-privs", "--", *command]
    (directory / ROOT).mkdir(mode=0o555, exist_ok=True)
    (directory / STDERR).unlink(missing_ok=True)
    os.mkfifo(directory / STDERR, 0o600)
    with ExitStack() as stack:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, null)
        words = os.open(directory / STDERR, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, words)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, words, 2)]
        for number, source in enumerate(inherited.sources, start=3):
            high = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
            stack.callback(os.close, high)
            actions.append((os.POSIX_SPAWN_DUP2, high, number))
        try:
            pid = os.posix_spawn(
                argv[0], argv, ENVIRONMENT, file_actions=actions, setsid=True, setsigmask=(), setsigdef=DEFAULTED
            )
        except OSError as error:
            raise VmmError(f"QEMU cannot be started: {error}") from error
        try:
            if group is not None:
                with suppress(ProcessLookupError):  # it has ended already, and says why
                    group.attach(pid)
            return Process(pid, directory)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise


DEFAULTED = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Python ignores SIGPIPE; a child should not."""


def prepare() -> None:
    """What this program's children shall not have from it: descriptors that it was itself started with, and the right
    to leave a core dump, which would hold the guest's memory.

    Inherited, as QEMU steps down to another user at a moment of its own: from then on a parent without
    CAP_SYS_RESOURCE may not change its limits any more.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        with suppress(OSError):  # the one that listed them
            if int(entry) > 2:
                os.set_inheritable(int(entry), False)


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A unix socket for a child to inherit; ours is closed at the end, the child's goes on."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.bind(str(path))
        except OSError as error:
            raise VmmError(f"The socket {path} cannot be made: {error}") from error
        path.chmod(0o600)
        sock.listen(4)
        yield sock


def start_time(pid: int) -> int:
    """Clock ticks between the host's boot and the start of the process: with the pid, its identity.

    ProcessLookupError if it is gone; one that has ended but is not yet reaped still counts.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    return int(stat.rpartition(")")[2].split()[19])


def find_by_name(program: Path, name: str) -> int | None:
    """The QEMU whose `-name` this is, among all processes: for a VM whose record was not yet written."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        # It may still be on its way to become QEMU (nsenter, setpriv).
        ours = os.fsencode(program) in words and b"-name" in words
        if ours and words[words.index(b"-name") + 1] == os.fsencode(name.replace(",", ",,")):
            return int(path.parent.name)
    return None


async def remove_tree(directory: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
