"""Directory listings with cookies that mean the same after a change, a restart, and to any server.

An entry's cookie is a hash of its name, and entries are listed in the order of their cookies: a client that comes
back with a cookie gets exactly the names behind it, whatever was added or removed meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_right
from collections import OrderedDict

FIRST = 3
"""Cookies 1 and 2 are "." and ".."."""
LIMIT = 16
"""Listings kept; one of 100,000 names is some 15 MB."""


def cookie_of(name: bytes) -> int:
    """63 bits; two names of one directory never meet in practice."""
    return max(FIRST, int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1)


class Listings:
    """The listings of one export. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], list[tuple[int, bytes]]] = OrderedDict()

    def after(self, directory: int, cookie: int) -> list[tuple[int, bytes]]:
        """(cookie, name) of all entries behind `cookie`, in order. `directory` is open for reading."""
        status = os.fstat(directory)
        key = (status.st_ino, status.st_mtime_ns)
        with self._lock:
            listing = self._kept.get(key) if cookie else None
        if listing is None:
            names = [os.fsencode(name) for name in os.listdir(directory)]
            listing = sorted((cookie_of(name), name) for name in names)
            with self._lock:
                self._kept[key] = listing
                while len(self._kept) > LIMIT:
                    self._kept.popitem(last=False)
        return listing[bisect_right(listing, (cookie, b"\xff" * 256)) :]
