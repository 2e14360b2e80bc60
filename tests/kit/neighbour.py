"""A machine beside the host, on a private network: a namespace that serves files by HTTP.

Guests reach it where the host allows them that network (MAGS_HOST_ALLOWED_NETWORKS): the addresses of the host itself
are never theirs to reach.
"""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from tests.kit.networks import Place

NETWORK = IPv4Network(f"10.{224 + os.getpid() // 16384 % 16}.{os.getpid() // 64 % 256}.{os.getpid() % 64 * 4}/30")
"""Sessions of tests on one machine have one each."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, seen: list[str], directory: str) -> None:
        self._seen = seen
        super().__init__(*arguments, directory=directory)

    def do_GET(self) -> None:
        self._seen.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def neighbour(site: Path, seen: list[str] | None = None) -> Iterator[str]:
    """The URL under which the directory is served. `seen`: gets the target of each request."""
    ours, theirs = NETWORK.hosts()
    link = f"mt{os.getpid()}"
    place = Place()
    try:
        with IPRoute() as netlink:
            netlink.link("add", ifname=link, kind="veth", peer={"ifname": "eth0", "net_ns_fd": place.netns})
        try:
            _ip(f"address add {ours}/30 dev {link}", f"link set {link} up")
            place.ip("link set lo up", f"address add {theirs}/30 dev eth0", "link set eth0 up")
            handler = functools.partial(_Quiet, directory=str(site), seen=[] if seen is None else seen)
            server = place.do(lambda: http.server.ThreadingHTTPServer((str(theirs), 0), handler))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://{theirs}:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()
                server.server_close()
        finally:
            _ip(f"link delete {link}")
    finally:
        place.close()


def _ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands).encode(), check=True, timeout=60)
