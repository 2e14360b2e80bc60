"""The archive is read back by cpio(1), and depends on nothing but its content."""

from __future__ import annotations

import subprocess

from mags.host.images.cpio import Entry, archive

ENTRIES = [
    Entry("dev", None),
    Entry("init", b"#!/bin/sh\n"),
    Entry("mods", None),
    Entry("mods/empty", b"", 0o644),
    Entry("mods/odd.ko", b"12345", 0o644),
]


def test_cpio_reads_what_was_written() -> None:
    listing = subprocess.run(["cpio", "-tvn"], input=archive(ENTRIES), capture_output=True, check=True, timeout=60)
    rows = [line.split() for line in listing.stdout.decode().splitlines()]
    assert [(row[0], row[4], row[-1]) for row in rows] == [
        ("drwxr-xr-x", "0", "dev"),
        ("-rwxr-xr-x", "10", "init"),
        ("drwxr-xr-x", "0", "mods"),
        ("-rw-r--r--", "0", "mods/empty"),
        ("-rw-r--r--", "5", "mods/odd.ko"),
    ]


def test_equal_content_gives_an_equal_archive() -> None:
    assert archive(ENTRIES) == archive(list(ENTRIES))
    assert archive(ENTRIES) != archive(ENTRIES[:-1])
    assert len(archive([])) % 4 == 0
