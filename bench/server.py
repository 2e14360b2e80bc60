"""A server to measure: a whole installation of its own, with a client that is as close to the wire as can be."""

from __future__ import annotations

import http.client
import json
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mags.host.machines.presence import EVERY_S, LOOK_S
from tests.kit.installation import Installation


class Api:
    """One kept-alive connection to the REST API."""

    def __init__(self, installation: Installation) -> None:
        host, _, port = installation.api.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=120)
        self._headers = {"Authorization": f"Bearer {installation.token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: object = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        self._connection.request(method, f"/api/v1{path}", body=data, headers=self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
        return json.loads(content) if content else None

    def frames(self, request_id: str) -> dict[str, Any]:
        """Read a job's output to its end: what is recorded of it then (`status`, `exit_code`, `error`)."""
        headers = {**self._headers, "Accept": "application/vnd.mags.frames"}
        self._connection.request("GET", f"/api/v1/mags-jobs/{request_id}/logs?follow=1", headers=headers)
        answer = self._connection.getresponse()
        while True:
            stream, size = struct.unpack(">BI", answer.read(5))
            data = answer.read(size)
            if stream == 0:
                answer.read()
                end: dict[str, Any] = json.loads(data)
                return end

    def run(self, script: str, **fields: object) -> str:
        return str(self.call("POST", "/mags-jobs", {"script": script, **fields})["request_id"])

    def until_recorded(self, request_id: str) -> dict[str, Any]:
        """The status once the job's end is recorded."""
        while True:
            status: dict[str, Any] = self.call("GET", f"/mags-jobs/{request_id}/status")
            if status["status"] in ("completed", "error"):
                return status
            time.sleep(0.001)

    def settle(self, idle: int, *, seconds: float = 120.0) -> None:
        """Wait until the pool holds `idle` VMs and nothing is being made or ended, as the host has said since now: what
        is done to fill the pool again after a job is not part of the next one."""
        time.sleep(EVERY_S + LOOK_S)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pool = self.call("GET", "/mags-jobs/pool-status")
            if pool["idle_vms"] >= idle and pool["busy_vms"] == 0:
                return
            time.sleep(0.02)
        raise RuntimeError(f"the pool did not fill: {pool}")


@contextmanager
def server(**environment: str) -> Iterator[Installation]:
    with Installation(environment=environment) as installation:
        yield installation


def rss_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


def milliseconds(begin: float) -> float:
    return (time.perf_counter() - begin) * 1000
