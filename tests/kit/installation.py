"""A whole Mags on this machine, as a user has it: `mags up` with a data directory and a home of its own.

    with Installation(folder) as mags:
        mags.cli("run", "echo hi")

What takes long to make comes from a cache that all tests share (kit/cache), so that it is made once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mags.host.network.claims import ID_FILE
from tests.kit import cache, remnants, sessions

MAGS = Path(sys.executable).with_name("mags")
DEADLINE_S = 180.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Installation:
    """`environment` is added to that of `mags up` (settings as MAGS_HOST_*, ...). `shares`: it finds the templates of
    other tests, and what they know about KVM; else it makes and tries for itself, as on a new machine."""

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, flags: tuple[str, ...] = (), shares: bool = True
    ) -> None:
        self.folder = sessions.new_folder()
        self.home = self.folder / "home"
        self.home.mkdir()
        self.data = self.folder / "d"
        self.api, self.apps, self.ssh = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.flags = flags
        self.shares = shares
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MAGS_", "SUDO_"))},
            sessions.VARIABLE: sessions.current(),
            "HOME": str(self.home),
            "MAGS_CONFIG": str(self.home / ".mags" / "config.json"),
            "MAGS_UP_DATA_DIR": str(self.data),
            "MAGS_HOST_CACHE_DIR": str(cache.CACHE),
            "MAGS_HOST_SUBNET": f"10.{(os.getpid() % 100) + 100}.0.0/16",
            "PATH": f"{MAGS.parent}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            **(environment or {}),
        }
        self.up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Installation:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.show_logs()
        self.stop()

    # --- the server -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """`mags up` in the foreground, as a child of ours; returns when it says that it is up."""
        if self.shares and not self.data.exists():
            cache.share(self.data / "host")
        log = self.folder / "up.log"
        with log.open("ab") as output:
            self.up = subprocess.Popen(
                [MAGS, "up", "--api", self.api, "--apps", self.apps, "--ssh", self.ssh, *self.flags],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + DEADLINE_S
        while not (self.data / "run" / "up.json").exists() or self._pid_in_record() != self.up.pid:
            if self.up.poll() is not None:
                raise AssertionError(f"mags up ended with {self.up.returncode}: {log.read_text()[-3000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"mags up was not up in time: {log.read_text()[-3000:]}")
            time.sleep(0.05)

    def _pid_in_record(self) -> int:
        try:
            return int(json.loads((self.data / "run" / "up.json").read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return 0

    def kill_up(self) -> None:
        """kill -9 of the supervisor."""
        assert self.up is not None
        self.up.send_signal(signal.SIGKILL)
        self.up.wait(timeout=60)

    def restart(self) -> None:
        """`mags down` and `mags up` on the same data."""
        self.down()
        self.start()

    def down(self, *flags: str) -> str:
        """`mags down`; what it says."""
        said = self.cli("down", *flags).stderr.decode()
        assert self.up is not None
        self.up.wait(timeout=60)
        return said

    def stop(self) -> None:
        """Take it away with all its data, in whatever state it is. AssertionError when something of it is left."""
        ids = self.network_ids()
        try:
            if (self.data / "run").exists():
                self.cli("down", "--purge", "--yes")
            if self.up is not None and self.up.poll() is None:  # it was just starting
                self.up.send_signal(signal.SIGTERM)
                self.up.wait(timeout=60)
            deadline = time.monotonic() + 15  # its clients notice that it has gone
            while (left := self.in_the_kernel(ids)) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not left, f"left behind: {left}"
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def network_ids(self) -> set[str]:
        return {file.read_text().strip() for file in self.data.glob(f"*/{ID_FILE}")}

    def in_the_kernel(self, ids: set[str] | None = None) -> list[str]:
        """What there is of it: processes, mounts, links, tables, control groups, pinned namespaces."""
        found = [f"process {name}" for name in self.programs()]
        found += remnants.of_places([self.data])
        return found + remnants.of_networks((ids or set()) - self.network_ids())

    def programs(self) -> dict[str, list[int]]:
        """Pids of the running programs by name (control, host, edge, nats-server) that belong to this installation."""
        found: dict[str, list[int]] = {}
        mark = f"MAGS_UP_DATA_DIR={self.data}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                ours = mark in (entry / "environ").read_bytes().split(b"\0") or str(self.data).encode() in b" ".join(
                    words
                )
            except OSError:
                continue
            if not ours:
                continue
            name = Path(os.fsdecode(words[0])).name
            if words[1:2] == [b"-m"]:
                name = os.fsdecode(words[2]).rpartition(".")[2]
            found.setdefault(name, []).append(int(entry.name))
        return found

    def show_logs(self) -> None:
        for log in [self.folder / "up.log", *sorted((self.data / "log").glob("*.log"))]:
            if log.exists():
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")

    # --- its users ------------------------------------------------------------------------------------------------

    def cli(
        self, *arguments: str, input: bytes = b"", check: bool = True, timeout: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[bytes]:
        """`mags ARGUMENTS`; `check`: it must end with 0."""
        done = subprocess.run(
            [MAGS, *arguments], env=self.environment, input=input, capture_output=True, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"mags {' '.join(arguments)} ended with {done.returncode}\n{done.stdout[-2000:]!r}\n"
                f"{done.stderr.decode(errors='replace')[-2000:]}"
            )
        return done

    def out(self, *arguments: str, input: bytes = b"") -> str:
        """What `mags ARGUMENTS` prints to stdout."""
        return self.cli(*arguments, input=input).stdout.decode(errors="replace")

    def json(self, *arguments: str) -> Any:
        return json.loads(self.out(*arguments, "--json"))

    def popen(self, *arguments: str, stdout: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [MAGS, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def url(self) -> str:
        return f"http://{self.api}"

    @property
    def token(self) -> str:
        return (self.data / "bootstrap-token").read_text().strip()
