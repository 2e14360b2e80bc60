from __future__ import annotations

import os
from pathlib import Path

import pytest

from mags.host.jfs.openfiles import LIMIT, OpenFiles


class Files:
    """Opens files and counts."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.opened, self.lost = directory, 0, 0
        self.cache = OpenFiles(self.lose)

    def lose(self) -> None:
        self.lost += 1

    def opener(self, flags: int) -> int:
        self.opened += 1
        return os.open(self.directory / "f", flags | os.O_CREAT)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_is_opened_once(files: Files) -> None:
    for write in (True, False, True):
        with files.cache.use(b"h", files.opener, write=write) as file:
            assert file.writable
    assert files.opened == 1


def test_reader_is_replaced_by_a_writer_and_lives_as_long_as_it_is_used(files: Files) -> None:
    before = open_descriptors()
    with files.cache.use(b"h", files.opener, write=False) as reader:
        with files.cache.use(b"h", files.opener, write=True) as writer:
            assert not reader.writable and writer.writable
            os.fstat(reader.descriptor)
    assert open_descriptors() == before + 1
    files.cache.clear()
    assert open_descriptors() == before


def test_only_idle_files_are_swept(files: Files) -> None:
    with files.cache.use(b"h", files.opener, write=True) as file:
        file.dirty = True
        files.cache.sweep(idle=0)
        os.fstat(file.descriptor)
    files.cache.sweep(idle=60)
    assert files.opened == 1
    files.cache.sweep(idle=0)
    with files.cache.use(b"h", files.opener, write=True):
        assert files.opened == 2
    assert files.lost == 0
    files.cache.clear()


def test_number_of_open_files_is_bounded(files: Files) -> None:
    before = open_descriptors()
    for number in range(LIMIT + 20):
        with files.cache.use(b"%d" % number, files.opener, write=True):
            pass
    assert open_descriptors() == before + LIMIT
    files.cache.clear()


def test_failed_sync_is_a_loss(files: Files) -> None:
    with files.cache.use(b"h", files.opener, write=True) as file:
        file.dirty = True
    other = os.open(os.devnull, os.O_RDONLY)
    real = os.dup(file.descriptor)
    os.dup2(os.pipe()[1], file.descriptor)  # fsync of a pipe fails
    with pytest.raises(OSError):
        files.cache.sync(b"h")
    assert files.lost == 1
    files.cache.sync(b"h")
    os.close(other)
    os.close(real)
