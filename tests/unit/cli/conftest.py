"""`mags` run in this process against answers made up by the test: what it prints, sends, and exits with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from mags.cli.main import main
from mags.sdk import wire
from mags.sdk.testing import Answer, MockTransport, SeenRequest

GOLDEN = Path(__file__).with_name("golden")
Handler = Callable[[SeenRequest], Answer]


class Outcome(NamedTuple):
    status: int
    out: str
    err: str
    seen: list[SeenRequest]


class Mags(Protocol):
    def __call__(self, *words: str, answer: Handler | Answer = ...) -> Outcome: ...


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """~/.mags of the test."""
    for name in ("MAGS_API_URL", "MAGS_API_TOKEN", "MAGS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MAGS_CONFIG", str(tmp_path / ".mags" / "config.json"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("mags.sdk.retries.backoff", lambda failures: 0.0)
    return tmp_path / ".mags"


@pytest.fixture
def mags(home: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Mags:
    monkeypatch.setenv("MAGS_API_URL", "http://mags.test")
    monkeypatch.setenv("MAGS_API_TOKEN", "token")

    def run(*words: str, answer: Handler | Answer = 200) -> Outcome:
        handler: Handler = answer if callable(answer) else lambda _: answer
        transport = MockTransport(handler)

        def again(url: str) -> MockTransport:
            transport.closed = False
            return transport

        monkeypatch.setattr(wire, "Wire", again)
        monkeypatch.setattr(transport, "close", lambda: None)
        status = main(list(words))
        out, err = capfdbinary.readouterr()
        return Outcome(status, out.decode(), err.decode(), transport.seen)

    return run


@pytest.fixture
def golden() -> Callable[[str, Outcome], None]:
    """Compare with golden/NAME.txt; MAGS_UPDATE_GOLDEN=1 writes it instead."""

    def compare(name: str, outcome: Outcome) -> None:
        file = GOLDEN / f"{name}.txt"
        text = f"status {outcome.status}\n--- stdout\n{outcome.out}--- stderr\n{outcome.err}"
        if os.environ.get("MAGS_UPDATE_GOLDEN"):
            file.write_text(text)
        assert text == file.read_text()

    return compare


JOB: dict[str, Any] = {
    "request_id": "3f0c2a9e-0000-4000-8000-000000000001",
    "name": "nightly",
    "status": "completed",
    "workspace_id": "project",
    "vm_id": "0b9e2a9e-0000-4000-8000-000000000002",
    "host_id": "host-1",
    "exit_code": 0,
    "error": None,
    "subdomain": None,
    "url": None,
    "persistent": False,
    "no_sleep": False,
    "startup_command": None,
    "created_at": "2026-01-31T12:00:00.000Z",
    "started_at": "2026-01-31T12:00:00.050Z",
    "completed_at": "2026-01-31T12:00:01.300Z",
    "queue_ms": 12,
    "boot_ms": 38,
    "script_duration_ms": 1250,
    "total_duration_ms": 1300,
    "start_kind": "pool",
}
