"""qemu-img judges the images that we write."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mags.host.vmm.qemu import overlay

GIB = 1 << 30


def qemu_img(*words: str | Path) -> str:
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base, with a comma.raw"
    with path.open("wb") as file:
        file.write(b"content of the base")
        file.truncate(1 << 20)
    return path


@pytest.mark.parametrize("size", [1 << 20, 512 << 20, (512 << 20) + 512, 8 * GIB, 5000 * GIB])
def test_an_overlay_is_whole_and_shows_its_base(tmp_path: Path, base: Path, size: int) -> None:
    path = tmp_path / "work.qcow2"
    overlay.create(path, base, size, owner=12345)
    info = json.loads(qemu_img("info", "--output=json", path))
    assert (info["virtual-size"], info["full-backing-filename"]) == (size, str(base))
    assert info["backing-filename-format"] == "raw"
    assert json.loads(qemu_img("check", "--output=json", path)).get("check-errors") == 0
    assert "Images are identical" in qemu_img("compare", path, base)
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (12345, 12345, 0o600)
    assert status.st_blocks * 512 < 1 << 20


def test_an_overlay_can_be_written(tmp_path: Path, base: Path) -> None:
    path = tmp_path / "work.qcow2"
    overlay.create(path, base, 1 << 20, owner=0)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 64k 64k", str(path)], check=True, capture_output=True)
    qemu_img("check", path)
    qemu_img("convert", "-O", "raw", path, tmp_path / "flat")
    flat = (tmp_path / "flat").read_bytes()
    assert flat.startswith(b"content of the base")
    assert flat[1 << 16 : 1 << 17] == b"\7" * (1 << 16)
    assert base.read_bytes()[1 << 16 :].count(0) == base.stat().st_size - (1 << 16)


def test_an_overlay_that_exists_is_not_overwritten(tmp_path: Path, base: Path) -> None:
    (tmp_path / "work.qcow2").write_text("precious")
    with pytest.raises(FileExistsError):
        overlay.create(tmp_path / "work.qcow2", base, 1 << 20, owner=0)
    assert (tmp_path / "work.qcow2").read_text() == "precious"


def test_a_path_too_long_for_the_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long"):
        overlay.create(tmp_path / "work.qcow2", Path("/" + "x/" * 600), 1 << 20, owner=0)
