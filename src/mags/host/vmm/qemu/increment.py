"""Read a qcow2 image as a set of changes, and apply them to a raw image. All calls block.

Both kinds of image that it reads were written by a QEMU whose guest may have taken it over: everything is bounded by
the file's own size, nothing else is ever opened (a backing or data file is not), and features we did not ask for are
refused. Format: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu.overlay import CLUSTER, CLUSTER_BITS, L2_SPAN

MAGIC = b"QFI\xfb"
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
TOLERATED = 0b01
"""Incompatible feature bits that do not matter to a reader: "dirty", refcounts may be inaccurate."""
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
ZERO_FLAG, COMPRESSED_FLAG = 1, 1 << 62
STEP = 4 << 20
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)
_off = ctypes.c_int64


class BadImage(VmmError):
    """This is no image of ours, or not any more."""


@dataclass(frozen=True, slots=True)
class Run:
    """`length` bytes at `offset` of the disk: at `source` of the file, or zeros if that is None."""

    offset: int
    length: int
    source: int | None


@dataclass(frozen=True, slots=True)
class Applied:
    """Bytes of data written, and bytes that became zeros."""

    data: int
    zeros: int


@dataclass(frozen=True, slots=True)
class Image:
    """An open qcow2 image: the disk's size, and where its tables begin.

    torn: its writer died. What it refers to beyond its end reads as zeros, as for QEMU: after a power cut a table may
    be on disk before the data that nobody had flushed.
    """

    descriptor: int
    size: int
    l1_offset: int
    l1_entries: int
    torn: bool = False

    @classmethod
    def read(cls, descriptor: int) -> Image:
        """BadImage if it is none, or uses what ours never use."""
        words = os.pread(descriptor, HEADER.size, 0)
        if len(words) < HEADER.size:
            raise BadImage("The image has no header.")
        fields = HEADER.unpack(words)
        magic, version, bits, size, crypt, entries, l1_offset = *fields[:2], *fields[4:9]
        snapshots, incompatible = fields[11], fields[13]
        if magic != MAGIC or version != 3 or crypt or snapshots or incompatible & ~TOLERATED:
            raise BadImage("The image is not a plain qcow2 image.")
        if bits != CLUSTER_BITS:
            raise BadImage("The image has clusters of another size than ours.")
        needed = -(-size // L2_SPAN)
        if size > 1 << 46 or entries < needed or needed * 8 > 32 << 20:
            raise BadImage("The image's first table does not fit its size.")
        return cls(descriptor, size, l1_offset, needed)

    def runs(self) -> Iterator[Run]:
        """What the image holds, in order, neighbours joined (up to 4 MiB of data each)."""
        last: Run | None = None
        for offset, source in self._clusters():
            length = min(CLUSTER, self.size - offset)
            if last is not None and last.offset + last.length == offset and _continues(last, source):
                last = Run(last.offset, last.length + length, last.source)
                continue
            if last is not None:
                yield last
            last = Run(offset, length, source)
        if last is not None:
            yield last

    def _clusters(self) -> Iterator[tuple[int, int | None]]:
        end = os.fstat(self.descriptor).st_size
        per_table = CLUSTER // 8
        for index, entry in enumerate(self._table(self.l1_offset, self.l1_entries, end)):
            table = entry & OFFSET_MASK
            if not table:
                continue
            for place, word in enumerate(self._table(table, per_table, end)):
                offset = (index * per_table + place) * CLUSTER
                if not word or offset >= self.size:
                    continue
                if word & COMPRESSED_FLAG:
                    raise BadImage("The image has compressed clusters.")
                source = word & OFFSET_MASK
                if word & ZERO_FLAG or (source >= end and self.torn):
                    yield offset, None
                elif source:
                    if source % CLUSTER or source >= end:
                        raise BadImage("The image refers to bytes that it has not.")
                    yield offset, source

    def _table(self, offset: int, entries: int, end: int) -> tuple[int, ...]:
        if offset % CLUSTER or offset >= end:
            raise BadImage("A table of the image lies outside it.")
        words = os.pread(self.descriptor, entries * 8, offset).ljust(entries * 8, b"\0")
        return struct.unpack(f">{entries}Q", words)

    def apply(self, target: int) -> Applied:
        """Write everything to the open raw image `target`. BadImage; OSError when a file fails."""
        data = zeros = 0
        for run in self.runs():
            if run.source is None:
                _punch(target, run.offset, run.length)
                zeros += run.length
            else:
                _copy(self.descriptor, run.source, target, run.offset, run.length)
                data += run.length
        return Applied(data, zeros)


def apply_file(source: Path, target: Path, size: int, *, torn: bool = False) -> Applied:
    """Write the qcow2 image `source` over the raw image `target`, durably (fsync); a target that is shorter grows.

    size: bytes of the disk; what the image has beyond is left out. torn: its writer died (see `Image`).
    """
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        image = Image.read(descriptor)
        size = min(image.size, size)
        image = replace(image, size=size, l1_entries=-(-size // L2_SPAN), torn=torn)
        written = os.open(target, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(written).st_size < image.size:
                os.ftruncate(written, image.size)
            applied = image.apply(written)
            os.fsync(written)
        finally:
            os.close(written)
    finally:
        os.close(descriptor)
    return applied


def _continues(run: Run, source: int | None) -> bool:
    if run.source is None or source is None:
        return run.source is source
    return run.source + run.length == source and run.length < STEP


def _copy(source: int, at: int, target: int, offset: int, length: int) -> None:
    while length:
        # Short at the file's end, where the last cluster was never filled: the rest reads as zeros.
        block = os.pread(source, min(STEP, length), at) or bytes(min(STEP, length))
        view = memoryview(block)
        while view:
            written = os.pwrite(target, view, offset)
            view, offset, at, length = view[written:], offset + written, at + written, length - written


def _punch(target: int, offset: int, length: int) -> None:
    """Zeros without blocks. Python has fallocate(2) only without its flags."""
    if _libc.fallocate(target, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, _off(offset), _off(length)) == 0:
        return
    zeros = bytes(min(STEP, length))
    while length:
        written = os.pwrite(target, zeros[: min(len(zeros), length)], offset)
        offset, length = offset + written, length - written
