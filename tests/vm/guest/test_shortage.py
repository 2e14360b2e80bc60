"""Whoever takes all memory or all process ids of a VM is stopped with a reason, and the next command answers."""

from __future__ import annotations

import asyncio

import pytest

from mags.host.guest import Exec
from tests.guest.kit import collect, read_until
from tests.kit.vms import TIMEOUT, Running

pytestmark = pytest.mark.vm

FORKS = b"bomb() { bomb | bomb & }; bomb; exec sleep 1000"
"""Its first process needs no further one, and stays."""
HOGS = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do tail /dev/zero & done; while :; do tail /dev/zero; done"


async def alive(running: Running) -> None:
    """Commands run, programs start, and the agent works on files."""
    ended, text = await running.run("echo alive; ls / | grep -c '^etc$'")
    assert (ended.code, text) == (0, "alive\n1\n")
    await running.channel.stat("/etc/passwd")


async def test_a_process_that_takes_all_memory_dies_alone(running: Running) -> None:
    other = await running.channel.exec(Exec(script=b"echo up; sleep 1000"))
    await read_until(other, b"up\n")
    process = await running.channel.exec(Exec(argv=["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]))
    ended = (await collect(process)).exit
    assert (ended.exit_code, ended.message) == (137, "the VM ran out of memory")
    await alive(running)
    assert other.exit is None
    killed = await running.channel.exec(Exec(script=b"kill -9 $$"))
    assert (await collect(killed)).exit.message == "", "that was its own affair"


async def test_a_command_of_many_processes_that_take_all_memory_is_killed_as_a_whole(running: Running) -> None:
    other = await running.channel.exec(Exec(script=b"echo up; sleep 1000"))
    await read_until(other, b"up\n")
    ended, _ = await running.run(HOGS)
    assert ended.exit_code == 137 and ended.message.startswith("the VM ran out of memory again and again")
    await alive(running)
    assert other.exit is None
    assert (await running.run("pgrep tail"))[0].code == 1, "nothing of it is left"


async def test_a_fork_bomb_leaves_room_for_others(running: Running) -> None:
    bomb = await running.channel.exec(Exec(script=FORKS))

    async def refused() -> None:
        seen = b""
        while b"can't fork" not in seen:
            piece = await bomb.next_output()
            assert piece is not None, seen
            bomb.acknowledge(piece.stream, piece.offset + len(piece.data))
            seen = seen[-100:] + piece.data

    await asyncio.wait_for(refused(), TIMEOUT)
    for _ in range(3):
        await running.channel.ping()
        ended, text = await running.run("echo alive")
        assert (ended.code, text) == (0, "alive\n"), ended
    await bomb.release()
    async with asyncio.timeout(TIMEOUT):
        while (await running.channel.stats()).processes > 200:
            await asyncio.sleep(0.05)
    await alive(running)


async def test_file_systems_in_memory_leave_room_for_others(running: Running) -> None:
    for place in ("/dev/shm", "/run", "/dev"):
        ended, text = await running.run(f"dd if=/dev/zero of={place}/fill bs=1M 2>&1 | head -1")
        assert ended.code == 0 and "No space left" in text
    await alive(running)
    await running.run("rm /dev/shm/fill /run/fill /dev/fill; mkdir /m; mount -t tmpfs -o size=100% none /m")
    ended, _ = await running.run("exec dd if=/dev/zero of=/m/fill bs=1M")
    assert (ended.exit_code, ended.message) == (137, "the VM ran out of memory")
    await alive(running)
    await running.channel.remove("/m/fill")
    ended, _ = await running.run("exec dd if=/dev/zero of=/m/fill bs=1M count=20")
    assert ended.code == 0
