"""qcow2 images that a hostile QEMU could leave us. They are refused, or read; never more than their own bytes."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from mags.host.vmm.qemu import overlay
from mags.host.vmm.qemu.increment import BadImage, Image, apply_file

CLUSTER = 64 << 10
SIZE = 16 << 20


def image_with(path: Path, clusters: dict[int, bytes | None]) -> None:
    """A qcow2 image of SIZE bytes; None is a zero cluster."""
    overlay.create(path, path, SIZE, owner=os.getuid())
    with path.open("r+b") as file:
        table = file.seek(0, os.SEEK_END)
        entries = [0] * (CLUSTER // 8)
        place = table + CLUSTER
        for number, data in clusters.items():
            if data is None:
                entries[number] = 1
                continue
            entries[number] = place | 1 << 63
            file.seek(place)
            file.write(data.ljust(CLUSTER, b"\0"))
            place += CLUSTER
        file.seek(table)
        file.write(struct.pack(f">{len(entries)}Q", *entries))
        file.seek(3 * CLUSTER)
        file.write(struct.pack(">Q", table | 1 << 63))


def applied(path: Path, target: Path) -> bytes:
    target.write_bytes(b"\x01" * SIZE)
    with path.open("rb") as source, target.open("r+b") as file:
        Image.read(source.fileno()).apply(file.fileno())
    return target.read_bytes()


def test_data_zeros_and_holes(tmp_path: Path) -> None:
    image_with(tmp_path / "i", {0: b"first", 3: None, 4: b"a", 5: b"b"})
    data = applied(tmp_path / "i", tmp_path / "t")
    assert data[:6] == b"first\0"
    assert data[CLUSTER : 3 * CLUSTER] == b"\x01" * (2 * CLUSTER)
    assert data[3 * CLUSTER : 4 * CLUSTER] == bytes(CLUSTER)
    assert data[4 * CLUSTER : 4 * CLUSTER + 2] == b"a\0" and data[5 * CLUSTER : 5 * CLUSTER + 2] == b"b\0"
    assert data[6 * CLUSTER :] == b"\x01" * (SIZE - 6 * CLUSTER)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"RAW\0"),
        (4, struct.pack(">I", 2)),
        (20, struct.pack(">I", 40)),  # clusters of a terabyte
        (20, struct.pack(">I", 9)),  # clusters so small that it takes ages to go through them
        (24, struct.pack(">Q", 1 << 60)),  # a disk of an exabyte
        (32, struct.pack(">I", 1)),  # encrypted
        (36, struct.pack(">I", 0)),  # no table
        (40, struct.pack(">Q", 1 << 50)),  # the table far away
        (40, struct.pack(">Q", 12)),
        (60, struct.pack(">I", 1)),  # snapshots
        (72, struct.pack(">Q", 0b100)),  # an external data file
        (72, struct.pack(">Q", 1 << 4)),  # extended L2 entries
        (3 * CLUSTER, struct.pack(">Q", 1 << 50)),
    ],
)
def test_impossible_headers_are_refused(tmp_path: Path, offset: int, value: bytes) -> None:
    path = tmp_path / "i"
    image_with(path, {0: b"x"})
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    with pytest.raises(BadImage):
        applied(path, tmp_path / "t")


@pytest.mark.parametrize("entry", [1 << 62 | 5 * CLUSTER, 1 << 50, 5 * CLUSTER + 512])
def test_impossible_clusters_are_refused(tmp_path: Path, entry: int) -> None:
    path = tmp_path / "i"
    image_with(path, {0: b"x"})
    with path.open("r+b") as file:
        file.seek(4 * CLUSTER)
        file.write(struct.pack(">Q", entry))
    with pytest.raises(BadImage):
        applied(path, tmp_path / "t")


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "i").touch()
    with pytest.raises(BadImage, match="no header"):
        applied(tmp_path / "i", tmp_path / "t")


def test_garbage_never_does_more_than_raise(tmp_path: Path) -> None:
    chance = random.Random(1)
    path, target = tmp_path / "i", tmp_path / "t"
    image_with(path, {0: b"x", 7: None, 9: b"y"})
    good = path.read_bytes()
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            region = chance.choice((0, 3 * CLUSTER, 4 * CLUSTER))
            bad[region + chance.randrange(112)] = chance.randrange(256)
        path.write_bytes(bad[: chance.randrange(len(bad))] if chance.random() < 0.2 else bad)
        target.write_bytes(b"")
        with path.open("rb") as source, target.open("r+b") as file:
            try:
                list(Image.read(source.fileno()).runs())
                if Image.read(source.fileno()).size <= SIZE:
                    Image.read(source.fileno()).apply(file.fileno())
            except BadImage:
                pass
        assert target.stat().st_size <= SIZE


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("claimed", [SIZE * 4, 1 << 40, 1 << 46])
def test_a_disk_that_claims_to_be_larger_than_it_is_is_cut(tmp_path: Path, claimed: int, torn: bool) -> None:
    """A guest that has taken its hypervisor over writes what it likes into the files that are synced and salvaged."""
    path, target = tmp_path / "i", tmp_path / "t"
    image_with(path, {1: b"kept", SIZE // CLUSTER: b"beyond"})
    with path.open("r+b") as file:
        file.seek(24)
        file.write(struct.pack(">Q", claimed))
        file.seek(36)
        file.write(struct.pack(">I", -(-claimed // overlay.L2_SPAN)))
    target.write_bytes(bytes(SIZE))
    assert apply_file(path, target, SIZE, torn=torn).data == CLUSTER
    assert target.stat().st_size == SIZE and target.read_bytes()[CLUSTER : CLUSTER + 5] == b"kept\0"


def test_a_dead_vms_disk_may_be_smaller_than_was_wished(tmp_path: Path) -> None:
    path, target = tmp_path / "i", tmp_path / "t"
    image_with(path, {1: b"kept"})
    target.write_bytes(bytes(2 * SIZE))
    assert apply_file(path, target, 2 * SIZE, torn=True).data == CLUSTER
    assert target.stat().st_size == 2 * SIZE and target.read_bytes()[CLUSTER : CLUSTER + 5] == b"kept\0"


def test_clusters_that_a_power_cut_has_taken_are_zeros_and_the_rest_is_kept(tmp_path: Path) -> None:
    path, target = tmp_path / "i", tmp_path / "t"
    image_with(path, {0: b"flushed", 1: b"never flushed"})
    os.truncate(path, path.stat().st_size - CLUSTER)
    target.write_bytes(b"\x01" * SIZE)
    with pytest.raises(BadImage, match="has not"):
        apply_file(path, target, SIZE)
    applied_ = apply_file(path, target, SIZE, torn=True)
    assert (applied_.data, applied_.zeros) == (CLUSTER, CLUSTER)
    assert target.read_bytes()[:8] == b"flushed\0" and not any(target.read_bytes()[CLUSTER : 2 * CLUSTER])
