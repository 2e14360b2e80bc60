"""A real VM in a world of our own: behind a host that is a namespace, with an internet that is another."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mags.host.guest import Channel
from mags.host.isolation import UidPool
from mags.host.machines import welcome
from mags.host.network import Namespace, NamespacePool, kernel
from tests.kit import vms
from tests.kit.networks import PRIVATE, WEBSITE, World

SITE_NAME = "www.example"


@dataclass(frozen=True, slots=True)
class Inside:
    """A VM that runs, its network, and a shell in it."""

    channel: Channel
    namespace: Namespace

    async def run(self, script: str) -> tuple[int | None, str]:
        """The exit code of a script and all that it wrote."""
        ended, output = await vms.run(self.channel, script)
        return ended.code, output


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    name_server = _NameServer(world)
    yield world
    name_server.close()
    world.close()


class _NameServer:
    """Says of every name that it is WEBSITE. It has a private address, as the resolvers of hosts do."""

    def __init__(self, world: World) -> None:
        self._socket = world.internet.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((PRIVATE[0], 53))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            question = query[12 : query.index(b"\0", 12) + 5]
            is_a = question[-4:-2] == b"\0\1"
            record = b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 60, 4) + socket.inet_aton(WEBSITE) if is_a else b""
            self._socket.sendto(
                query[:2] + b"\x81\x80\0\1" + struct.pack(">HHH", is_a, 0, 0) + question + record, client
            )

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (PRIVATE[0], 53))
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def vm_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where templates are: made by the first test that needs one."""
    state = tmp_path_factory.mktemp("vmm")
    for directory in (state, *state.parents[:2]):
        directory.chmod(0o755)  # QEMU's user looks for its files there
    return state


@pytest.fixture
async def pool(world: World, tmp_path: Path) -> AsyncIterator[NamespacePool]:
    pool = await NamespacePool.open(tmp_path / "network", runtime=tmp_path / "run", target=0, dns=[PRIVATE[0]])
    yield pool
    await pool.aclose()
    for left in (tmp_path / "run").glob("*/net/*"):
        kernel.unpin(left)


@pytest.fixture
async def inside(pool: NamespacePool, vm_state: Path) -> AsyncIterator[Inside]:
    vmm = await vms.open_vmm(await vms.open_images(), vm_state)
    namespace = await pool.take()
    uid = UidPool.of_installation(pool.installation).take()
    vm = await vmm.clone(vms.SPEC, vm_state / f"vm{namespace.index}", namespace=namespace, uid=uid)
    try:
        channel = await Channel.connect(vm.channel_path, timeout=vms.TIMEOUT)
        try:
            await channel.configure(welcome.first(), timeout=vms.TIMEOUT)
            yield Inside(channel, namespace)
        finally:
            await channel.aclose()
    finally:
        await vm.destroy()
        await pool.release(namespace)
