"""HOST:PORT, as settings have it."""

from __future__ import annotations


def split_address(text: str) -> tuple[str, int]:
    """("127.0.0.1", 80) of "127.0.0.1:80", ("::1", 80) of "[::1]:80", every address of ":80"; ValueError when it is
    none."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)
