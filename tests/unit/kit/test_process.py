from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from mags.kit.process import OUTPUT_LIMIT, CommandFailed, CommandMissing, CommandTimedOut, run


async def test_a_command_gives_its_output_and_status() -> None:
    done = await run(["sh", "-c", "cat; echo err >&2; exit 3"], timeout=30, stdin=b"in", check=False)
    assert (done.status, done.stdout, done.stderr) == (3, b"in", b"err\n")


async def test_a_failure_says_what_the_command_said() -> None:
    with pytest.raises(CommandFailed, match="no such thing"):
        await run(["sh", "-c", "echo no such thing >&2; exit 1"], timeout=30)


async def test_a_missing_program_is_named() -> None:
    with pytest.raises(CommandMissing, match="mags-no-such-program"):
        await run(["mags-no-such-program"], timeout=5)


async def test_at_the_deadline_the_whole_group_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(CommandTimedOut):
        await run(["sh", "-c", f"sleep 1000 & echo $! >{pid_file}; wait"], timeout=0.5)
    await _ends(int(pid_file.read_text()))


async def test_a_cancelled_wait_kills_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(run(["sh", "-c", f"echo $$ >{pid_file}; exec sleep 1000"], timeout=100))
    while not pid_file.exists() or not pid_file.read_text():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _ends(int(pid_file.read_text()))


async def test_output_beyond_the_limit_is_dropped_and_the_command_ends() -> None:
    done = await run([sys.executable, "-c", f"import sys; sys.stdout.write('x' * {OUTPUT_LIMIT + 100000})"], timeout=60)
    assert len(done.stdout) == OUTPUT_LIMIT


async def test_a_command_that_reads_nothing_is_no_error() -> None:
    assert (await run(["true"], timeout=30, stdin=b"x" * (1 << 20))).status == 0


async def _ends(pid: int) -> None:
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"process {pid} lives")
