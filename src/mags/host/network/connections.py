"""Ends TCP connections of this machine to a VM, so that nobody waits for a VM that has fallen asleep.

By netlink's SOCK_DESTROY (sock_diag(7), <linux/inet_diag.h>): both ends get a reset, whoever owns the socket.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
from collections.abc import Iterator

log = logging.getLogger(__name__)

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_REQUEST_HEAD = struct.Struct("=BBBBI")
"""Family, protocol, extensions, padding, states."""
_ID_SIZE = 48
"""Of struct inet_diag_sockid: ports, addresses, device, cookie."""
_STATES = (1 << 1) | (1 << 2) | (1 << 4) | (1 << 5) | (1 << 8)
"""ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT."""
_BYTECODE, _TO_HOST = 1, 8
"""INET_DIAG_REQ_BYTECODE, INET_DIAG_BC_D_COND."""
TIMEOUT = 5.0


def cut(address: str) -> None:
    """`destroy`, as far as that goes: what the kernel refuses is logged."""
    try:
        destroy(address)
    except OSError as error:
        log.warning("connections to %s can't be ended: %s", address, error)


def destroy(address: str) -> int:
    """End all connections to an IPv4 address; how many there were. OSError where the kernel can't.

    In the calling thread's network namespace; takes less than a millisecond.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(TIMEOUT)
        head = _REQUEST_HEAD.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _STATES)
        condition = struct.pack("=BBHi4s", socket.AF_INET, 32, 0, -1, socket.inet_aton(address))
        program = struct.pack("=BBH", _TO_HOST, 4 + len(condition), 8 + len(condition)) + condition
        attribute = struct.pack("=HH", 4 + len(program), _BYTECODE) + program
        found = list(_ask(netlink, _BY_FAMILY, _DUMP, head + bytes(_ID_SIZE) + attribute))
        for message in found:
            # One that has just ended by itself is fine.
            with contextlib.suppress(FileNotFoundError):
                list(_ask(netlink, _DESTROY, _ACK, head + message[4 : 4 + _ID_SIZE]))
        return len(found)


def _ask(netlink: socket.socket, kind: int, flags: int, payload: bytes) -> Iterator[bytes]:
    """The payloads of the answers. OSError when the kernel refuses."""
    netlink.send(_HEADER.pack(_HEADER.size + len(payload), kind, _REQUEST | flags, 1, 0) + payload)
    while True:
        data = netlink.recv(1 << 16)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind_of, _, _, _ = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + length]
            if kind_of == _DONE:
                return
            if kind_of == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                if code:
                    raise OSError(code, errno.errorcode.get(code, "netlink"))
                return
            yield body
            at += max(_HEADER.size, (length + 3) & ~3)
