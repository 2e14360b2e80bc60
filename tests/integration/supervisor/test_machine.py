"""The commands about this machine: doctor and image, on the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.installation import MAGS

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def mags(tmp_path: Path) -> Run:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAGS_UP", "MAGS_HOST"))}
    environment |= {"MAGS_UP_DATA_DIR": str(tmp_path / "d"), "NO_COLOR": "1"}

    def run(*words: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`status` None: either 0 or 1, as this machine is."""
        done = subprocess.run([MAGS, *words], env=environment, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode in ((0, 1) if status is None else (status,)), (words, done.stdout, done.stderr)
        return done

    return run


def test_doctor_looks_at_everything_and_gives_advice(mags: Run) -> None:
    checks = json.loads(mags("doctor", "--json", status=None).stdout)
    names = {check["name"] for check in checks}
    assert {"Python", "rights", "memory", "disk", "KVM", "QEMU", "networks"} <= names
    assert all(check["advice"] for check in checks if check["ok"] is False)
    lines = mags("doctor", status=None).stdout.splitlines()
    assert all(any(name in line for line in lines) for name in names)


def test_images_are_listed_imported_and_removed(mags: Run, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").write_text("#!")
    (tmp_path / "bin" / "sh").chmod(0o755)
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        archive.add(tmp_path / "bin", "bin")
    assert "mags run --image mine" in mags("image", "import", "mine", str(tmp_path / "root.tar")).stderr
    assert mags("image", "list").stdout.splitlines()[1].startswith("mine ")
    mags("image", "remove", "mine")
    assert json.loads(mags("image", "list", "--json").stdout) == {"images": []}


def test_images_that_are_none_are_said(mags: Run, tmp_path: Path) -> None:
    assert "neither" in mags("image", "import", "x", str(tmp_path / "missing"), status=1).stderr
    assert "nothing" in mags("image", "remove", "nothing", status=1).stderr
    assert "mags image build alpine" in mags("image", "list").stderr
    assert "mags up" in mags("image", "warm", "alpine", status=1).stderr
