from __future__ import annotations

import os
from pathlib import Path

from mags.host.vmm.qemu.memory import CHUNK, checksum

SIZE = 3 * CHUNK + 4096


def file(path: Path, parts: dict[int, bytes], *, holes: bool) -> str:
    with path.open("wb") as made:
        made.truncate(SIZE) if holes else made.write(bytes(SIZE))
        for offset, data in parts.items():
            made.seek(offset)
            made.write(data)
    return checksum(path, SIZE)


def test_a_check_sum_tells_what_a_file_holds_and_where_and_nothing_of_its_holes(tmp_path: Path) -> None:
    data = os.urandom(5000)
    parts = {4096: data, CHUNK + 100_000: data, SIZE - 5000: data}
    sums = [file(tmp_path / "a", parts, holes=holes) for holes in (True, False)]
    assert sums[0] == sums[1] and len(sums[0]) == 8
    others = [
        {**parts, 4096: data[:-1] + bytes([data[-1] ^ 1])},
        {**parts, CHUNK + 100_000: bytes(5000)},
        {**parts, 2 * CHUNK + 100_000: data, CHUNK + 100_000: bytes(5000)},
        {**parts, 2 * CHUNK: b"\1"},
        {},
    ]
    found = [file(tmp_path / "b", other, holes=True) for other in others]
    assert len({sums[0], *found}) == len(others) + 1
