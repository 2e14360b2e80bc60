from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mags.kit.children import Child, ChildFailed


def _child(
    tmp_path: Path, script: str, *, start_timeout: float = 60.0, stop_timeout: float = 10.0
) -> tuple[Child, Path]:
    ready = tmp_path / "ready"

    async def is_ready() -> bool:
        return ready.exists()

    child = Child(
        "probe",
        ["sh", "-c", script.replace("READY", str(ready))],
        log_file=tmp_path / "log" / "probe.log",
        ready=is_ready,
        start_timeout=start_timeout,
        stop_timeout=stop_timeout,
    )
    return child, ready


async def test_a_child_is_up_when_it_is_ready_and_gone_when_stopped(tmp_path: Path) -> None:
    child, ready = _child(tmp_path, "touch READY; exec sleep 1000")
    await child.start()
    pid = child.pid
    assert ready.exists() and pid is not None
    await child.stop()
    assert child.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await child.stop()


async def test_a_child_that_ends_at_once_says_its_last_words(tmp_path: Path) -> None:
    child, _ = _child(tmp_path, "echo the port is taken; exit 4")
    with pytest.raises(ChildFailed, match="status 4: the port is taken"):
        await child.start()


async def test_a_child_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    child, _ = _child(tmp_path, "exec sleep 1000", start_timeout=0.3)
    with pytest.raises(ChildFailed, match="not ready"):
        await child.start()
    assert child.pid is None


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    child, _ = _child(tmp_path, "touch READY; exec sleep 1000")
    await child.start()
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    while child.pid in (None, first):
        await asyncio.sleep(0.02)
    assert child.restarts == 1
    await child.stop()


async def test_a_child_is_started_again_once_there_is_room_for_its_log(tmp_path: Path) -> None:
    child, _ = _child(tmp_path, "touch READY; exec sleep 1000")
    await child.start()
    first = child.pid
    assert first is not None
    folder, aside = tmp_path / "log", tmp_path / "aside"
    folder.rename(aside)
    folder.touch()  # where nothing can be made
    os.kill(first, signal.SIGKILL)
    while child.restarts == 0:
        await asyncio.sleep(0.02)
    folder.unlink()
    aside.rename(folder)
    while child.pid in (None, first):
        await asyncio.sleep(0.02)
    await child.stop()


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child, _ = _child(tmp_path, "trap '' TERM; touch READY; while :; do sleep 0.1; done", stop_timeout=0.3)
    await child.start()
    await child.stop()
    assert child.pid is None


def test_a_child_dies_with_the_supervisor_that_was_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib, signal, os
from mags.kit.children import Child
async def main():
    async def ready(): return True
    child = Child("c", ["sleep", "1000"], log_file=pathlib.Path({str(tmp_path / "l")!r}), ready=ready)
    await child.start()
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    for _ in range(1000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        import time

        time.sleep(0.01)
    raise AssertionError("the child lives on")
