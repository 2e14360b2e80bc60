"""SeaweedFS (program `weed`) as a child: an S3 service on one machine, for `mags up --s3 seaweedfs` and tests."""

from __future__ import annotations

import json
import secrets
import socket
from pathlib import Path

from mags.host.storage.errors import StorageError
from mags.host.storage.s3 import S3, Bucket
from mags.kit import programs
from mags.kit.children import Child
from mags.kit.files import write_atomic

START_TIMEOUT = 60.0


class SeaweedFS:
    """One server with all its parts, its data in `directory`, listening on loopback only.

    `endpoint`, `access_key` and `secret_key` are kept in the directory: they are the same at the next start. The
    ports are chosen anew at the first start and kept too, since a volume's settings name the endpoint. `pid_file`: as
    of `Child`.
    """

    def __init__(self, directory: Path, *, pid_file: Path | None = None) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        state = directory / "mags.json"
        if not state.exists():
            ports = dict(zip(("s3", "master", "filer", "volume", "admin"), _free_ports(5), strict=True))
            key = {"access_key": secrets.token_hex(8), "secret_key": secrets.token_urlsafe(24), "ports": ports}
            write_atomic(state, json.dumps(key).encode())
        kept = json.loads(state.read_bytes())
        self.access_key: str = kept["access_key"]
        self.secret_key: str = kept["secret_key"]
        self._ports: dict[str, int] = kept["ports"]
        self._child = Child(
            "seaweedfs",
            self._command(),
            log_file=directory / "weed.log",
            pid_file=pid_file,
            ready=self._ready,
            start_timeout=START_TIMEOUT,
        )

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def bucket(self, name: str) -> Bucket:
        return Bucket(self.endpoint, name, self.access_key, self.secret_key)

    async def start(self) -> None:
        """ChildFailed if it does not serve within 60 s."""
        await self._child.start()

    async def stop(self) -> None:
        await self._child.stop()

    def _command(self) -> list[str]:
        identity = {
            "name": "mags",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = self.directory / "s3.json"
        write_atomic(config, json.dumps({"identities": [identity]}).encode())
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        argv = [str(programs.find("weed")), "-logtostderr=true", "mini", f"-dir={data}", "-ip=127.0.0.1"]
        argv += ["-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", f"-s3.config={config}"]
        argv += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"]
        argv += [f"-{part}.port={port}" for part, port in self._ports.items()]
        return argv

    async def _ready(self) -> bool:
        client = S3(self.bucket("mags-ready"))
        try:
            if not await client.exists():
                await client.create()
            await client.put("ready", b"1")
            return True
        except StorageError:
            return False
        finally:
            await client.aclose()


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, as their gRPC twins (10,000 higher, SeaweedFS's custom) are."""
    found: list[int] = []
    held: list[socket.socket] = []
    try:
        while len(found) < count:
            port = 12_000 + secrets.randbelow(10_000)
            pair = [socket.socket(), socket.socket()]
            held += pair
            try:
                pair[0].bind(("127.0.0.1", port))
                pair[1].bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            found.append(port)
    finally:
        for one in held:
            one.close()
    return found
