"""Notices when tables of nftables are removed in this namespace."""

from __future__ import annotations

import asyncio
import socket
import struct

# <linux/netlink.h>, <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>
_NETLINK_NETFILTER = 12
_GROUP_NFTABLES = 7
_DELETED_TABLE = 10 << 8 | 2

SETTLE_SECONDS = 0.1
"""Whoever reloads rules removes and adds in several steps; they are waited out."""


class RulesetWatch:
    """Listens from the moment it is made until it is closed."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 1 << (_GROUP_NFTABLES - 1)))
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Stop. Harmless if repeated."""
        self._socket.close()

    async def table_removed(self) -> None:
        """Return a little after a table was removed, whoever's it was, or after messages were lost."""
        loop = asyncio.get_running_loop()
        removed = False
        while not removed:
            try:
                data = await loop.sock_recv(self._socket, 1 << 16)
            except OSError:
                break  # ENOBUFS: more happened than the socket holds
            removed = _DELETED_TABLE in _message_types(data)
        await asyncio.sleep(SETTLE_SECONDS)


def _message_types(data: bytes) -> set[int]:
    found, at = set(), 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        found.add(kind)
        at += max(16, (length + 3) & ~3)
    return found
