"""Images in the OCI layout, and what every image must have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mags.host.images import layout
from mags.host.images.errors import ImageInvalid


class Layout:
    """Writes an OCI layout directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, **extra: object) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data), **extra}

    def document(self, value: object, **extra: object) -> dict[str, object]:
        return self.blob(json.dumps(value).encode(), **extra)

    def index(self, *manifests: dict[str, object]) -> None:
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))


@pytest.fixture
def oci(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "image")


def test_layers_are_those_of_this_machine_lowest_first(oci: Layout) -> None:
    first, second, other = oci.blob(b"first"), oci.blob(b"second"), oci.blob(b"other")
    arm = oci.document({"layers": [other]}, platform={"architecture": "arm64", "os": "linux"})
    amd = oci.document({"layers": [first, second]}, platform={"architecture": "amd64", "os": "linux"})
    oci.index(oci.document({"manifests": [arm, amd]}))
    assert [path.read_bytes() for path in layout.layers(oci.path, "x86_64")] == [b"first", b"second"]
    assert [path.read_bytes() for path in layout.layers(oci.path, "aarch64")] == [b"other"]
    with pytest.raises(ImageInvalid, match="linux/riscv64"):
        layout.layers(oci.path, "riscv64")


def test_a_part_with_another_hash_is_refused(oci: Layout) -> None:
    layer = oci.blob(b"layer")
    oci.index(oci.document({"layers": [layer]}))
    (oci.path / "blobs" / "sha256" / str(layer["digest"])[7:]).write_bytes(b"tampered")
    with pytest.raises(ImageInvalid, match="damaged"):
        layout.layers(oci.path, "x86_64")


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "md5:00", "", "sha256:" + "0" * 64])
def test_a_part_that_is_not_there_is_refused(oci: Layout, digest: str) -> None:
    oci.index({"digest": digest, "size": 1})
    with pytest.raises(ImageInvalid):
        layout.layers(oci.path, "x86_64")


@pytest.mark.parametrize(
    "index", [b"", b"[]", b'{"manifests": 7}', b"\xff", b'{"manifests": [{"digest": "x"}]}', b"{}"]
)
def test_an_index_that_is_none_is_refused(oci: Layout, index: bytes) -> None:
    (oci.path / "index.json").write_bytes(index)
    with pytest.raises(ImageInvalid):
        layout.layers(oci.path, "x86_64")


def test_an_index_in_itself_ends(oci: Layout) -> None:
    nested: dict[str, object] = oci.document({"layers": []})
    for _ in range(10):
        nested = oci.document({"manifests": [nested]})
    oci.index(nested)
    with pytest.raises(ImageInvalid, match="no layers"):
        layout.layers(oci.path, "x86_64")


def test_any_directory_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match="oci-layout"):
        layout.layers(tmp_path, "x86_64")


@pytest.mark.parametrize(
    ("links", "found"),
    [
        ({}, True),
        ({"bin": "usr/bin"}, True),
        ({"bin": "/usr/bin", "usr/bin/sh": "busybox"}, True),
        ({"bin": "../../usr/bin"}, True),
        ({"bin": "/bin"}, False),
        ({"bin": "nowhere"}, False),
        ({"usr/bin/sh": "/bin/sh", "bin": "usr/bin"}, False),
    ],
)
def test_a_shell_is_looked_for_as_the_guest_would(tmp_path: Path, links: dict[str, str], found: bool) -> None:
    place = tmp_path / ("usr/bin" if links else "bin")
    place.mkdir(parents=True)
    (place / "busybox").write_bytes(b"")
    if "usr/bin/sh" not in links:
        (place / "sh").write_bytes(b"")
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert layout.has_shell(tmp_path) is found


def test_mount_points_are_directories_afterwards(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/passwd").write_text("root")
    (tree / "dev").symlink_to(tmp_path / "outside")
    (tree / "proc").write_text("a file")
    layout.make_mount_points(tree)
    assert all((tree / name).is_dir() and not (tree / name).is_symlink() for name in layout.MOUNT_POINTS)
    assert (tree / "etc/passwd").exists()
