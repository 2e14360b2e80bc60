"""Ports: are they free, and which one is."""

from __future__ import annotations

import errno
import socket

from mags.kit.addresses import split_address

BACKLOG = 2048
"""Connections that may wait while nobody accepts them."""


class PortTaken(Exception):
    """The sentence says which one, and what to do."""


def check(address: str, *, use: str, flag: str) -> None:
    """PortTaken when nobody could listen there."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(
                    f"Port {port} ({use}) is taken by another program. Stop that one (`ss -ltnp sport = :{port}` shows "
                    f"it), or choose another with {flag}, such as {flag} {host}:{port + 100}."
                ) from error
            if error.errno == errno.EACCES:
                raise PortTaken(
                    f"Only root may listen on port {port} ({use}). Choose one above 1023 with {flag}."
                ) from error
            raise PortTaken(f"Nobody can listen on {address} ({use}): {error.strerror}. Choose with {flag}.") from error


def listen(address: str, *, use: str, flag: str) -> socket.socket:
    """A listening socket there (port 0: at any); PortTaken when there can't be one."""
    check(address, use=use, flag=flag)
    host, port = split_address(address)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortTaken(f"Nobody can listen on {address} ({use}): {error.strerror}. Choose with {flag}.") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """HOST:PORT, as in our settings."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_port(host: str = "127.0.0.1") -> int:
    """A port of an address of ours that is free now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
