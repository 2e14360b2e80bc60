from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mags.kit import pidfiles


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


async def test_a_remembered_process_is_ended(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    pidfiles.write(tmp_path / "pid", process.pid)
    assert await pidfiles.end(tmp_path / "pid", grace=60)
    assert process.wait() == -15 and not (tmp_path / "pid").exists()
    assert not await pidfiles.end(tmp_path / "pid", grace=60)


async def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(["sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"], stdout=-1) as stubborn:
        assert stubborn.stdout is not None and stubborn.stdout.readline() == b"\n"
        pidfiles.write(tmp_path / "pid", stubborn.pid)
        assert await pidfiles.end(tmp_path / "pid", grace=0.2)
        assert stubborn.wait() == -9


@pytest.mark.parametrize("other", [{"started": 1}, {"boot": "another"}])
async def test_whoever_has_the_number_now_is_left_alone(
    process: subprocess.Popen[bytes], tmp_path: Path, other: dict[str, object]
) -> None:
    pidfiles.write(tmp_path / "pid", process.pid)
    found = json.loads((tmp_path / "pid").read_text())
    (tmp_path / "pid").write_text(json.dumps(found | other))
    assert not await pidfiles.end(tmp_path / "pid", grace=60)
    assert process.poll() is None and not (tmp_path / "pid").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 1, "boot": ""}'])
async def test_what_is_no_record_ends_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert not await pidfiles.end(tmp_path / "pid", grace=60)
