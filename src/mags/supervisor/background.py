"""`mags up -d`: the supervisor as a process of its own, which tells us over a pipe how its start goes.

Lines on the pipe: `note TEXT`, then `ready URL` or `failed TEXT`; an early end of the pipe is a crash.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from mags.kit.children import LOG_LIMIT
from mags.supervisor.config import Settings
from mags.supervisor.layout import Layout

PATIENCE = 120.0
"""Seconds that a supervisor has to end which did not come up."""


class NotStarted(Exception):
    """The supervisor did not come up; the sentence says why."""


def launch(settings: Settings, *, note: Callable[[str], None]) -> str:
    """Start it and wait until it is ready; the API's URL. NotStarted when it failed; then nothing is left."""
    layout = Layout(settings.data_dir)
    layout.make()
    log_file = layout.log / "up.log"
    if log_file.exists() and log_file.stat().st_size > LOG_LIMIT:
        log_file.replace(log_file.with_name("up.log.1"))
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "r") as lines, log_file.open("ab") as output:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "mags.supervisor", "--report", str(write_end), settings.model_dump_json()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[write_end],
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(write_end)
        try:
            return _follow(lines, note, log_file)
        except BaseException:
            process.terminate()
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()  # its programs end with it
                process.wait()
            raise


def _follow(lines: Iterable[str], note: Callable[[str], None], log_file: Path) -> str:
    for line in lines:
        kind, _, text = line.rstrip("\n").partition(" ")
        if kind == "ready":
            return text
        if kind == "failed":
            raise NotStarted(text)
        note(text)
    raise NotStarted(f"The supervisor ended at its start. See {log_file}.")
