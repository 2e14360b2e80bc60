"""Processes are known by pid and start; what they say and how they end is told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu.process import (
    Inheritance,
    Process,
    find_by_name,
    listening,
    prepare,
    spawn,
    start_time,
)

SHELL = "/bin/sh"


def start(tmp_path: Path, script: str, inherited: Inheritance | None = None) -> Process:
    return spawn([SHELL, "-c", script], tmp_path, inherited or Inheritance(), namespace=None, group=None)


async def ending(process: Process) -> str:
    async with asyncio.timeout(60):
        return await asyncio.shield(process.died)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 0", "QEMU ended with status 0."),
        (
            "echo first >&2; echo qemu: no such device >&2; exit 1",
            "QEMU ended with status 1: first | qemu: no such device",
        ),
        ("kill -9 $$", "QEMU was ended by signal 9."),
    ],
)
async def test_the_end_is_told_with_the_last_words(tmp_path: Path, script: str, reason: str) -> None:
    assert await ending(start(tmp_path, script)) == reason


async def test_what_floods_its_standard_error_is_not_blocked(tmp_path: Path) -> None:
    process = start(tmp_path, "head -c 1000000 /dev/zero | tr '\\0' x >&2 2>/dev/null; exit 3")
    assert "status 3" in await ending(process)


async def test_killing_waits_for_the_end_and_may_be_repeated(tmp_path: Path) -> None:
    process = start(tmp_path, "sleep 600")
    assert os.getsid(process.pid) == process.pid
    await process.kill()
    await process.kill()
    assert "signal 9" in process.died.result()
    with pytest.raises(ProcessLookupError):
        start_time(process.pid)


async def test_work_ends_with_the_process_it_depends_on(tmp_path: Path) -> None:
    process = start(tmp_path, "echo cannot >&2; exit 2")
    with pytest.raises(VmmError, match="status 2: cannot"):
        await process.unless_dead(asyncio.sleep(600))


async def test_work_that_fails_because_of_the_end_tells_the_end(tmp_path: Path) -> None:
    process = start(tmp_path, "exit 2")

    async def monitor() -> None:
        await asyncio.shield(process.died)
        raise VmmError("The connection was lost.")

    with pytest.raises(VmmError, match="status 2"):
        await process.unless_dead(monitor())


async def test_work_gives_its_result_or_its_own_error(tmp_path: Path) -> None:
    process = start(tmp_path, "sleep 600")
    assert await process.unless_dead(asyncio.sleep(0, "done")) == "done"

    async def fail() -> None:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        await process.unless_dead(fail())
    await process.kill()


async def test_descriptors_arrive_under_their_numbers_and_no_others(tmp_path: Path) -> None:
    prepare()
    reader, writer = os.pipe()
    os.set_inheritable(reader, False)
    inherited = Inheritance()
    with listening(tmp_path / "socket") as sock:
        assert inherited.add(sock.fileno()) == 3
        assert inherited.add(writer) == 4
        process = start(tmp_path, "ls /proc/self/fd >&4; exit 0", inherited)
    os.close(writer)
    listed = await asyncio.to_thread(_read_all, reader)
    await ending(process)
    # 5 is the directory that ls itself reads.
    assert listed.split() == ["0", "1", "2", "3", "4", "5"]


def _read_all(descriptor: int) -> str:
    with os.fdopen(descriptor) as file:
        return file.read()


class Slow:
    """A control group whose host is so busy that the child is far ahead when it is put in."""

    def __init__(self, ready: Path) -> None:
        self._ready = ready

    def attach(self, pid: int) -> None:
        while not self._ready.exists():
            time.sleep(0.01)


async def test_a_child_that_is_far_ahead_as_another_user_leaves_no_core_dump_either(tmp_path: Path) -> None:
    prepare()
    ready = tmp_path / "ready"
    script = f"ulimit -c >&2; touch {ready}; exec setpriv --reuid=54321 --clear-groups sh -c 'sleep 0.2; exit 4'"
    process = spawn([SHELL, "-c", script], tmp_path, Inheritance(), namespace=None, group=Slow(ready))
    assert await ending(process) == "QEMU ended with status 4: 0"


class Late:
    """A control group that comes when the child has ended."""

    def attach(self, pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        raise ProcessLookupError(pid)


async def test_a_child_that_ends_at_once_says_why(tmp_path: Path) -> None:
    command = [SHELL, "-c", "echo no such option >&2; exit 1"]
    process = spawn(command, tmp_path, Inheritance(), namespace=None, group=Late())
    assert await ending(process) == "QEMU ended with status 1: no such option"


async def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    process = spawn(["/no/such/qemu"], tmp_path, Inheritance(), namespace=None, group=None)
    assert "status 127" in await ending(process)


async def test_a_process_of_somebody_else_can_be_watched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stderr")
    with subprocess.Popen(["sleep", "600"]) as other:
        process = Process(other.pid, tmp_path)
        assert process.started == start_time(other.pid) > 0
        process.release()
        assert process.died.result() == "no longer watched"
        other.kill()


async def test_a_process_that_has_ended_is_seen_to_be_dead(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stderr")
    with subprocess.Popen(["true"]) as child:
        await asyncio.to_thread(os.waitid, os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        process = Process(child.pid, tmp_path)
        assert "status 0" in await ending(process)
        child.returncode = 0


def test_processes_are_found_by_name_only_with_their_program(tmp_path: Path) -> None:
    name = f"{tmp_path}/vm,1"
    sleep = Path("/usr/bin/sleep")
    with subprocess.Popen(
        [sleep, "-name", name.replace(",", ",,"), "600"], executable=SHELL, stdin=subprocess.PIPE
    ) as _:
        pass
    script = "read x; exit 0"
    argv = [str(sleep), "-c", script, "-name", name.replace(",", ",,")]
    with subprocess.Popen(argv, executable=SHELL, stdin=subprocess.PIPE) as child:
        while find_by_name(sleep, name) is None:  # until the kernel shows its new command line
            time.sleep(0.01)
        assert find_by_name(sleep, name) == child.pid
        assert find_by_name(Path("/usr/bin/other"), name) is None
        assert find_by_name(sleep, f"{name}2") is None
        child.send_signal(signal.SIGKILL)
    assert find_by_name(sleep, name) is None


def test_a_path_too_long_for_a_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VmmError, match="too long"), listening(tmp_path / ("x" * 200)):
        pass


async def test_killing_what_has_ended_unseen_is_harmless(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stderr")
    with subprocess.Popen(["sleep", "600"]) as other:
        process = Process(other.pid, tmp_path)
        other.kill()
        other.wait(60)
        await process.kill()
        assert process.died.done()


async def test_a_process_that_the_kernel_does_not_let_go_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(tmp_path, "sleep 600")
    with monkeypatch.context() as deaf:
        deaf.setattr(processes, "END_TIMEOUT", 0.01)
        deaf.setattr(signal, "pidfd_send_signal", lambda *_: None)
        with pytest.raises(VmmError, match="did not end within"):
            await process.kill()
    await process.kill()
