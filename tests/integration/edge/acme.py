"""A certificate authority that speaks ACME (RFC 8555): a Caddy of its own, and the DNS that it believes."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mags.kit.children import Child
from mags.kit.programs import find

HEADER = struct.Struct("!HHHHHH")


class Names(asyncio.DatagramProtocol):
    """A DNS server (RFC 1035) for which every name has one IPv4 address. `asked`: the names, in order."""

    def __init__(self, address: str) -> None:
        self._address = bytes(int(part) for part in address.split("."))
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        labels, at = [], HEADER.size
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        question = data[HEADER.size : at + 5]
        self.asked.append(".".join(labels))
        answers = [b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + self._address] if question[-3] == 1 else []
        head = HEADER.pack(HEADER.unpack_from(data)[0], 0x8180, 1, len(answers), 0, 0)
        self._transport.sendto(head + question + b"".join(answers), address)


@dataclass
class Authority:
    """`directory`: its ACME directory. `root`: its root certificate, which vouches for its own server too."""

    directory: str
    root: Path
    names: Names


@asynccontextmanager
async def authority(folder: Path, address: str, *, challenge: str) -> AsyncIterator[Authority]:
    """At a loopback address, where it also finds port 80 and 443 of all names."""
    folder.mkdir()
    loop = asyncio.get_running_loop()
    resolver, names = await loop.create_datagram_endpoint(lambda: Names(address), local_addr=(address, 53))
    handler = {
        "handler": "acme_server",
        "ca": "local",
        "host": f"{address}:444",
        "challenges": [challenge],
    }
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "storage": {"module": "file_system", "root": str(folder)},
        "apps": {
            "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
            "tls": {
                "certificates": {"automate": [address]},
                "automation": {"policies": [{"issuers": [{"module": "internal"}]}]},
            },
            "http": {
                "servers": {
                    "authority": {
                        "listen": [f"{address}:444"],
                        "protocols": ["h1"],
                        "automatic_https": {"disable": True},
                        "tls_connection_policies": [{}],
                        "routes": [{"handle": [handler]}],
                    }
                }
            },
        },
    }
    path, resolvers = folder / "caddy.json", folder / "resolv.conf"
    path.write_text(json.dumps(config))
    resolvers.write_text(f"nameserver {address}\n")
    # Its own setting of resolvers is for challenges by DNS alone.
    believing = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolvers)]

    async def ready() -> bool:
        try:
            _, writer = await asyncio.open_connection(address, 444)
        except OSError:
            return False
        writer.close()
        return (folder / "pki" / "authorities" / "local" / "root.crt").exists()

    child = Child(
        "authority",
        [*believing, find("caddy"), "run", "--config", path],
        log_file=folder / "log",
        ready=ready,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )
    try:
        await child.start()
        root = folder / "pki" / "authorities" / "local" / "root.crt"
        yield Authority(f"https://{address}:444/acme/local/directory", root, names)
    finally:
        await child.stop()
        resolver.close()
