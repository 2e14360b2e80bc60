"""Users (and groups) that are nobody else's, one for each VM.

They have no name. Their numbers are from the range that Linux distributions leave unused, 0x70000000 to 0x7fffffff
(source: systemd, "Users, Groups, UIDs and GIDs on systemd systems"), cut into 4096 blocks. An installation draws its
block from its id, so that two installations on one machine hardly ever share one. Who has which is written nowhere
but in the owner of a VM's files; a restarted host program says so with `adopt`.
"""

from __future__ import annotations

from pathlib import Path

BLOCK = 1 << 16
_FIRST = 0x70000000
_BLOCKS = 1 << 12


class UidsExhausted(Exception):
    """Every user of the range belongs to a VM."""


class UidPool:
    """Hands out user ids of `first` to `first + count - 1`, each to one VM at a time, the longest unused first."""

    def __init__(self, first: int, count: int = BLOCK) -> None:
        if first < 1 or count < 1 or first + count > 1 << 31:
            raise ValueError(f"{count} users from {first} on is no range of user ids")
        self._first, self._count = first, count
        self._taken: set[int] = set()
        self._next = 0

    @property
    def first(self) -> int:
        """The lowest of its user ids."""
        return self._first

    @classmethod
    def of_installation(cls, installation: str) -> UidPool:
        """The block that goes with an installation's id (hexadecimal)."""
        return cls(_FIRST + int(installation, 16) % _BLOCKS * BLOCK)

    def take(self) -> int:
        """A user id that no VM has. Raises UidsExhausted."""
        for _ in range(self._count):
            uid = self._first + self._next
            self._next = (self._next + 1) % self._count
            if uid not in self._taken:
                self._taken.add(uid)
                return uid
        raise UidsExhausted(f"All {self._count} users from {self._first} on belong to VMs.")

    def adopt(self, uid: int) -> None:
        """Mark the user of a VM that an earlier process started. One outside the range is nothing to us."""
        self._taken.add(uid)

    def release(self, uid: int) -> None:
        """Take a user back. End its processes and remove its files before. Harmless if repeated."""
        self._taken.discard(uid)


def unmapped(first: int, count: int, uid_map: Path = Path("/proc/self/uid_map")) -> bool:
    """Whether a range of user ids is missing here, as it is in many containers."""
    for line in uid_map.read_text().splitlines():
        inside, _, length = map(int, line.split())
        if inside <= first and first + count <= inside + length:
            return False
    return True
