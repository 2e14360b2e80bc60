from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mags.host.storage.superblock import OFFSET, SIZE, used_bytes


def read(path: Path) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), SIZE, OFFSET)


def test_a_real_file_system(tmp_path: Path) -> None:
    image = tmp_path / "i"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, timeout=60)
    empty = used_bytes(read(image))
    data = tmp_path / "data"
    data.write_bytes(b"x" * (20 << 20))
    subprocess.run(["debugfs", "-w", "-R", f"write {data} data", image], check=True, timeout=60, capture_output=True)
    full = used_bytes(read(image))
    assert empty is not None and full is not None
    assert 20 << 20 <= full - empty < 21 << 20


def test_what_is_none(tmp_path: Path) -> None:
    assert used_bytes(b"") is None
    assert used_bytes(bytes(SIZE)) is None
    broken = bytearray(SIZE)
    broken[0x38:0x3A] = b"\x53\xef"
    broken[0x18] = 40
    assert used_bytes(bytes(broken)) is None
