"""Namespaces made ahead, so that a VM takes one in no time.

    open --> [fill] --> ready --take--> in use --release--> (destroyed)
    adopt(index): in use, as an earlier process left it
    sweep(keep):  destroys what earlier processes left and nobody keeps

Namespaces outlive the process. Several installations on one machine never touch each other's: names hold the
installation's id, and the kernel's routing table decides who gets an address.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from mags.host.network import claims
from mags.host.network.addresses import Subnet
from mags.host.network.errors import NetworkError, NetworkExhausted, NetworkMissing, NetworkUnavailable
from mags.host.network.namespace import Namespace
from mags.host.network.resolver import HostResolvers, Resolver
from mags.host.network.rules import HostServices, Policy
from mags.host.network.watch import RulesetWatch
from mags.host.network.workshop import Site, Workshop

log = logging.getLogger(__name__)
T = TypeVar("T")

FILL_DELAY_SECONDS = 0.2
"""Whoever takes a namespace is about to start a VM; filling leaves it the processor first, unless none is ready."""

RETRY_SECONDS = 2.0
"""How long filling, or putting the host's rules back, rests after it failed."""


class NamespacePool:
    """All networks of VMs of one installation on this host. Made by `open`."""

    def __init__(self, workshop: Workshop, resolver: Resolver, services: Mapping[int, int], target: int) -> None:
        self._workshop, self._resolver, self._tcp, self._target = workshop, resolver, services, target
        self._ready: deque[Namespace] = deque()
        self._used: set[int] = set()
        self._held: dict[int, Namespace] = {}
        """Those that were taken or adopted: who releases one again does not harm the next that has its number."""
        self._next = 0
        self._hungry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._found: set[int] = set()
        self._watch = RulesetWatch()
        self._claim: int | None = None

    @classmethod
    async def open(
        cls,
        state: Path,
        *,
        subnet: str = "10.231.0.0/16",
        target: int = 8,
        allowed: Sequence[str] = (),
        blocked: Sequence[str] = (),
        allow_smtp: bool = False,
        host_services: Mapping[int, int] | None = None,
        dns: Sequence[str] = (),
        runtime: Path = Path("/run/mags"),
    ) -> Self:
        """Set the host up and begin to fill.

        state: a directory that lasts; it holds the installation's id. runtime: one that a reboot empties.
        subnet: where VMs' addresses come from. target: how many to have ready. allowed, blocked: networks (CIDR)
        that guests reach although they are private, or do not although they are public. host_services: TCP ports of
        the guest's gateway -> ports on which something listens, on every address or the namespace's `host_address`;
        they are shut for the rest of the network. dns: addresses of resolvers, where not the host's own.

        Raises NetworkUnavailable where this machine cannot do it, ValueError for a bad subnet.
        """
        installation = _installation(state)
        directory = runtime / installation
        policy = Policy(tuple(allowed), tuple(blocked), allow_smtp)
        site = Site(installation, directory / "net", Subnet.parse(subnet), policy)
        pool = cls(Workshop(site), Resolver(HostResolvers(dns), site.subnet.holds), dict(host_services or {}), target)
        try:
            pool._claim = await asyncio.to_thread(claims.claim, directory, state)
            site.directory.mkdir(exist_ok=True, mode=0o755)
            await pool._begin()
        except BaseException:
            await pool._end()
            raise
        return pool

    async def _begin(self) -> None:
        overlapping = await self._do(self._workshop.overlapping)
        if overlapping:
            raise NetworkUnavailable(
                f"The subnet of VMs, {self._workshop.site.subnet.network}, is in use on this machine"
                f" ({', '.join(overlapping)}): choose another."
            )
        await self._resolver.open()
        await self._apply_host_rules()
        self._found = await self._do(self._workshop.existing)
        self._used = set(self._found)
        self._next = (max(self._used, default=-1) + 1) % self._workshop.site.subnet.size
        self._hungry.set()
        self._tasks.append(asyncio.create_task(self._fill(), name="network-pool"))
        self._tasks.append(asyncio.create_task(self._guard(), name="network-guard"))

    async def _apply_host_rules(self) -> None:
        udp, tcp = self._resolver.ports
        services = HostServices(udp={53: udp}, tcp={53: tcp, **self._tcp})
        await self._do(lambda: self._workshop.apply_host_rules(services))

    @property
    def installation(self) -> str:
        """The id in the names of everything that this pool makes."""
        return self._workshop.site.installation

    @property
    def ready(self) -> int:
        """How many namespaces wait to be taken."""
        return len(self._ready)

    async def take(self) -> Namespace:
        """A fresh namespace. At once when one is ready, else it is made now. Raises NetworkError."""
        self._hungry.set()
        namespace = self._ready.popleft() if self._ready else await self._make()
        self._held[namespace.index] = namespace
        return namespace

    async def release(self, namespace: Namespace) -> None:
        """Destroy a namespace; also if cancelled meanwhile. End the VM before. Harmless if repeated."""
        if self._held.get(namespace.index) is namespace:
            await self._destroy(namespace.index)

    async def adopt(self, index: int) -> Namespace:
        """The namespace that an earlier process took. Raises NetworkMissing if it is gone, or of another subnet."""
        if not 0 <= index < self._workshop.site.subnet.size or not await self._do(lambda: self._workshop.whole(index)):
            raise NetworkMissing(f"The network of VM {index} is gone.")
        self._used.add(index)
        return self._held.setdefault(index, self._namespace(index))

    def left(self, index: int) -> bool:
        """Whether an earlier process left this one. If not, the number may be another VM's by now."""
        return index in self._found

    async def sweep(self, keep: Collection[int]) -> list[int]:
        """Destroy what earlier processes left, but for the namespaces of `keep`; returns which."""
        orphans = sorted(self._found.difference(keep))
        for index in orphans:
            await self._destroy(index)
            self._found.discard(index)
        return orphans

    async def aclose(self) -> None:
        """Stop, and remove what no VM uses. Taken namespaces stay for the next process, with the host's rules."""
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            while self._ready:
                await self._destroy(self._ready.popleft().index)
            if not await self._do(self._workshop.existing):
                await self._do(self._workshop.remove_host_rules)
                await asyncio.to_thread(self._remove_directory)
        finally:
            await asyncio.shield(self._end())

    def _remove_directory(self) -> None:
        directory = self._workshop.site.directory
        with suppress(OSError):
            directory.rmdir()
            (directory.parent / claims.OWNER).unlink(missing_ok=True)
            directory.parent.rmdir()

    async def _end(self) -> None:
        self._watch.close()
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None
        await self._resolver.aclose()
        await asyncio.to_thread(self._workshop.close)

    async def _guard(self) -> None:
        """Put the host's rules back when somebody flushes them: without them guests reach the host."""
        while True:
            await self._watch.table_removed()
            while not await self._put_back():
                await asyncio.sleep(RETRY_SECONDS)

    async def _put_back(self) -> bool:
        """Whether the host's rules are there again, or were all the time."""
        try:
            if await self._do(self._workshop.host_rules_gone):
                log.warning("somebody removed our table of nftables: putting it back")
                await self._apply_host_rules()
        except Exception as error:  # whatever it is, guarding goes on
            log.error("cannot put the rules of nftables back: %s", error)
            return False
        return True

    async def _fill(self) -> None:
        while True:
            await self._hungry.wait()
            self._hungry.clear()
            if self._ready:
                await asyncio.sleep(FILL_DELAY_SECONDS)
            try:
                while len(self._ready) < self._target:
                    self._ready.append(await self._make())
            except Exception as error:  # whatever it is, filling goes on
                log.warning("cannot make a namespace: %s", error, exc_info=not isinstance(error, NetworkError))
                await asyncio.sleep(RETRY_SECONDS)
                self._hungry.set()

    async def _make(self) -> Namespace:
        for _ in range(self._workshop.site.subnet.size):
            index = self._next
            self._next = (index + 1) % self._workshop.site.subnet.size
            if index in self._used:
                continue
            self._used.add(index)
            try:
                await self._do(lambda index=index: self._workshop.make(index), undo=index)  # type: ignore[misc]
            except FileExistsError:
                self._used.discard(index)
                continue
            except OSError as error:
                self._used.discard(index)
                raise NetworkUnavailable(f"This machine cannot make a network for a VM: {error}.") from error
            except NetworkError:
                self._used.discard(index)
                raise
            return self._namespace(index)
        raise NetworkExhausted("Every address of VMs on this host is in use: stop some, or set a larger subnet.")

    def _namespace(self, index: int) -> Namespace:
        site = self._workshop.site
        pair = site.subnet.pair(index)
        return Namespace(index, site.veth(index), site.path(index), pair.address, pair.host, self._traffic)

    async def _destroy(self, index: int) -> None:
        def destroy() -> None:
            self._workshop.destroy(index)
            loop.call_soon_threadsafe(self._forget, index)

        loop = asyncio.get_running_loop()
        await self._do(destroy, thread=self._workshop.wrecker)

    def _forget(self, index: int) -> None:
        self._used.discard(index)
        self._held.pop(index, None)

    async def _traffic(self, index: int) -> tuple[int, int]:
        return await self._do(lambda: self._workshop.traffic(index))

    async def _do(
        self, work: Callable[[], T], *, thread: ThreadPoolExecutor | None = None, undo: int | None = None
    ) -> T:
        """Run in a workshop's thread, to its end. If the caller is cancelled meanwhile, namespace `undo`, which `work`
        makes, is destroyed again: but not one that was there already."""
        begun = (thread or self._workshop.builder).submit(work)
        future = asyncio.wrap_future(begun)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_seen)
            if undo is not None:
                self._workshop.builder.submit(self._unmake, begun, undo)  # in the same thread, so after it
                self._used.discard(undo)
            raise

    def _unmake(self, made: Future[T], index: int) -> None:
        if made.exception() is None:
            self._workshop.destroy(index)


def _seen(future: asyncio.Future[T]) -> None:
    """What went wrong with work that nobody waits for any more is nobody's to report."""
    if not future.cancelled():
        future.exception()


def _installation(state: Path) -> str:
    """The id of the installation whose state this is: six hexadecimal digits, made up once."""
    file = state / claims.ID_FILE
    state.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        beside = state / f".network-id.{secrets.token_hex(4)}"
        beside.write_text(secrets.token_hex(3))
        try:
            os.link(beside, file)
        finally:
            beside.unlink()
    return file.read_text().strip()
