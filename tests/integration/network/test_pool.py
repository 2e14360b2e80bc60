"""Namespaces are made, kept over restarts, and nothing is left of them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mags.host.network import NamespacePool, NetworkExhausted, NetworkMissing, NetworkUnavailable
from mags.host.network import pool as pools
from tests.kit.networks import WEBSITE, Guest, Servers, World, ask, ip


def devices() -> set[str]:
    listed = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    return {line.split("@")[0].split()[0] for line in listed.splitlines()}


def tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


async def wait_ready(pool: NamespacePool, count: int) -> None:
    async with asyncio.timeout(60):
        while pool.ready < count:
            await asyncio.sleep(0.01)


async def test_nothing_is_left_after_the_end(world: World, tmp_path: Path, runtime: Path) -> None:
    before = devices()
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=3)
    await wait_ready(pool, 3)
    namespace = await pool.take()
    assert len(devices()) > len(before) and pool.installation in tables()
    await pool.release(namespace)
    await pool.release(namespace)
    await pool.aclose()
    assert devices() == before
    assert pool.installation not in tables()
    assert list(runtime.iterdir()) == []


async def test_the_pool_refills_behind_whoever_takes(world: World, tmp_path: Path, runtime: Path) -> None:
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=2)
    await wait_ready(pool, 2)
    taken = [await pool.take() for _ in range(5)]
    assert len({namespace.address for namespace in taken}) == 5
    await wait_ready(pool, 2)
    for namespace in taken:
        await pool.release(namespace)
    await pool.aclose()


async def test_a_namespace_survives_the_process_that_made_it(world: World, tmp_path: Path, runtime: Path) -> None:
    """kill -9 with one namespace in use and others ready: the next process adopts the one and sweeps the others."""
    program = """
import asyncio, sys
from pathlib import Path
from mags.host.network import NamespacePool
async def main():
    pool = await NamespacePool.open(Path(sys.argv[1]) / "state", runtime=Path(sys.argv[2]), target=2)
    while pool.ready < 2:
        await asyncio.sleep(0.01)
    print((await pool.take()).index, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(runtime)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout as output:
        index = int(output.readline())
        os.kill(child.pid, signal.SIGKILL)
        child.wait(60)
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0)
    namespace = await pool.adopt(index)
    assert namespace.index == index
    assert index not in await pool.sweep([index])
    guest = Guest(namespace)
    servers = Servers(guest, tcp=(80,))
    try:
        assert await asyncio.to_thread(ask, namespace.address, 80)
        assert await asyncio.to_thread(guest.ask, WEBSITE, 80)
        fresh = await pool.take()
        assert fresh.index != index
        await pool.release(fresh)
        assert await pool.sweep([index]) == []
    finally:
        servers.close()
        guest.close()
    await pool.release(namespace)
    with pytest.raises(NetworkMissing):
        await pool.adopt(index)
    await pool.aclose()
    assert pool.installation not in tables()


async def test_the_end_leaves_what_is_in_use(world: World, tmp_path: Path, runtime: Path) -> None:
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=1)
    namespace = await pool.take()
    await pool.aclose()
    assert namespace.name in devices() and pool.installation in tables()
    again = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0)
    assert again.installation == pool.installation
    assert await again.sweep(()) == [namespace.index]
    await again.aclose()
    assert namespace.name not in devices()


async def test_two_installations_share_a_machine(world: World, tmp_path: Path, runtime: Path) -> None:
    one = await NamespacePool.open(tmp_path / "one", runtime=runtime, target=0)
    other = await NamespacePool.open(tmp_path / "other", runtime=runtime, target=0)
    mine, yours = [await one.take() for _ in range(2)], [await other.take() for _ in range(2)]
    assert len({namespace.address for namespace in (*mine, *yours)}) == 4
    assert await one.sweep(()) == []
    guest, neighbour = Guest(mine[0]), Guest(yours[0])
    servers = Servers(neighbour, tcp=(80,))
    try:
        assert await asyncio.to_thread(ask, yours[0].address, 80)
        assert await asyncio.to_thread(neighbour.ask, WEBSITE, 80)
        with pytest.raises(OSError):
            await asyncio.to_thread(guest.ask, yours[0].address, 80)
    finally:
        servers.close()
        guest.close()
        neighbour.close()
    for namespace in mine:
        await one.release(namespace)
    await one.aclose()
    assert yours[0].name in devices() and other.installation in tables()
    for namespace in yours:
        await other.release(namespace)
    await other.aclose()


async def test_a_tap_serves_one_process_at_a_time(world: World, tmp_path: Path, runtime: Path) -> None:
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0)
    namespace = await pool.take()
    first = namespace.open_tap(1234)
    with pytest.raises(OSError, match="busy"):
        namespace.open_tap(1234)
    os.close(first)
    os.close(namespace.open_tap(1234))
    await pool.release(namespace)
    with pytest.raises(FileNotFoundError):
        namespace.open_tap(1234)
    with pytest.raises(NetworkMissing):
        await namespace.count_traffic()
    await pool.aclose()


async def test_a_full_subnet_says_so(world: World, tmp_path: Path, runtime: Path) -> None:
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, subnet="10.231.0.0/29")
    taken = [await pool.take() for _ in range(3)]
    with pytest.raises(NetworkExhausted, match="larger subnet"):
        await pool.take()
    await pool.release(taken.pop())
    taken.append(await pool.take())
    for namespace in taken:
        await pool.release(namespace)
    await pool.aclose()


async def test_a_subnet_that_the_machine_uses_is_refused(world: World, tmp_path: Path, runtime: Path) -> None:
    ip("route add 10.231.4.0/24 dev eth0")
    try:
        with pytest.raises(NetworkUnavailable, match="choose another"):
            await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0)
    finally:
        ip("route del 10.231.4.0/24 dev eth0")
    with pytest.raises(ValueError, match="private"):
        await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, subnet="8.8.8.0/24")


async def test_a_flushed_firewall_is_put_back(world: World, pool: NamespacePool, guest: Guest) -> None:
    servers = Servers(None, tcp=(8080,))
    try:
        for _ in range(2):
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            async with asyncio.timeout(60):
                while pool.installation not in tables():
                    await asyncio.sleep(0.05)
        assert await asyncio.to_thread(guest.ask, WEBSITE, 80)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(guest.ask, "203.0.113.2", 8080)
    finally:
        servers.close()


async def test_rules_that_cannot_be_put_back_at_once_are_put_back_later(
    world: World, pool: NamespacePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nft fails once to tell, by an error of the system, and once to write."""
    monkeypatch.setattr(pools, "RETRY_SECONDS", 0.01)
    gone, failures = pool._workshop.host_rules_gone, [OSError(errno.EMFILE, os.strerror(errno.EMFILE))]

    def look() -> bool:
        if failures:
            raise failures.pop()
        return gone()

    monkeypatch.setattr(pool._workshop, "host_rules_gone", look)
    (broken := tmp_path / "broken").touch()
    stand_in = tmp_path / "bin" / "nft"
    stand_in.parent.mkdir()
    real = shutil.which("nft")
    fail_once = f'[ "$1" = -f ] && rm {broken} 2>&- && echo no memory >&2 && exit 1'
    stand_in.write_text(f'#!/bin/sh\n{fail_once}\nexec {real} "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    async with asyncio.timeout(60):
        while pool.installation not in tables():
            await asyncio.sleep(0.01)
    assert not failures and not broken.exists()


async def test_the_last_number_that_an_earlier_process_left_is_followed_by_the_first(
    world: World, tmp_path: Path, runtime: Path
) -> None:
    subnet = "10.231.0.0/29"
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, subnet=subnet)
    *others, last = [await pool.take() for _ in range(3)]
    for namespace in others:
        await pool.release(namespace)
    await pool.aclose()
    again = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, subnet=subnet)
    fresh = await again.take()
    assert (last.index, fresh.index) == (2, 0)
    await again.release(fresh)
    assert await again.sweep(()) == [last.index]
    await again.aclose()


async def test_a_cancelled_take_leaves_nothing(world: World, tmp_path: Path, runtime: Path) -> None:
    before = devices()
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0)
    taking = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await pool.aclose()
    assert devices() == before
    assert pool.installation not in tables()


async def test_a_cancelled_take_leaves_alone_what_another_process_has(
    world: World, tmp_path: Path, runtime: Path
) -> None:
    one, other = [await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0) for _ in range(2)]
    theirs = await other.take()
    taking = asyncio.create_task(one.take())
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await one.aclose()
    assert theirs.name in devices() and theirs.path.exists()
    assert (await other.adopt(theirs.index)) is theirs
    await other.release(theirs)
    await other.aclose()
    assert theirs.name not in devices()


async def test_a_cancelled_release_frees_the_number_all_the_same(world: World, tmp_path: Path, runtime: Path) -> None:
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, subnet="10.231.0.0/30")
    namespace = await pool.take()
    releasing = asyncio.create_task(pool.release(namespace))
    await asyncio.sleep(0)
    releasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await releasing
    async with asyncio.timeout(60):
        while pool._used:
            await asyncio.sleep(0.01)
    assert namespace.name not in devices()
    again = await pool.take()
    assert again.index == namespace.index
    await pool.release(namespace)
    assert again.name in devices(), "the number is another VM's by now"
    await pool.release(again)
    await pool.aclose()


async def test_an_end_that_is_cancelled_lets_go_of_everything(world: World, tmp_path: Path, runtime: Path) -> None:
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=3)
    await wait_ready(pool, 3)
    closing = asyncio.create_task(pool.aclose())
    while pool.ready == 3:
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    async with asyncio.timeout(60):
        while pool._claim is not None:
            await asyncio.sleep(0.01)
    again = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0)
    await again.sweep(())
    await again.aclose()
    assert list(runtime.iterdir()) == []


async def test_networks_of_another_subnet_are_not_adopted(world: World, tmp_path: Path, runtime: Path) -> None:
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, subnet="10.231.0.0/28")
    taken = [await pool.take() for _ in range(4)]
    await pool.aclose()
    smaller = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, subnet="10.231.0.0/29")
    assert (await smaller.adopt(2)).address == taken[2].address
    for index in (3, 7, 100, -1):
        with pytest.raises(NetworkMissing):
            await smaller.adopt(index)
    await smaller.aclose()
    moved = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, subnet="10.232.0.0/28")
    with pytest.raises(NetworkMissing):
        await moved.adopt(2)
    assert await moved.sweep(()) == [0, 1, 2, 3]
    await moved.aclose()
    assert list(runtime.iterdir()) == []
