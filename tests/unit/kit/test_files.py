from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mags.kit import clock, logs
from mags.kit.files import write_atomic
from mags.kit.process import CommandMissing
from mags.kit.programs import find


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_atomic(path, b"one")
    write_atomic(path, b"two", mode=0o644, durable=True)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "directory", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["directory"]


def test_times_are_written_with_z_and_read_back() -> None:
    moment = datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=UTC)
    assert clock.iso(moment) == "2026-01-31T12:00:00.123Z"
    assert clock.from_iso("2026-01-31T12:00:00.123Z") == clock.from_iso("2026-01-31T12:00:00.123") == moment


def test_programs_are_found_beside_python_or_on_the_path() -> None:
    assert find("nats-server").name == "nats-server"
    assert find("sh").is_absolute()
    with pytest.raises(CommandMissing):
        find("mags-no-such-program")


def test_log_lines_name_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("host")
        logging.getLogger("mags.x").info("words")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert "INFO host mags.x: words" in capsys.readouterr().err
