"""The agent as PID 1 of a real VM: what a process under test cannot show."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from mags.host.guest import (
    Builtin,
    Channel,
    ChannelClosed,
    Configure,
    Exec,
    GuestError,
    Network,
    Offsets,
    Terminal,
)
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.vm import QemuVm
from tests.guest.kit import collect, read_until
from tests.kit import vms
from tests.kit.vms import TIMEOUT, Running

pytestmark = pytest.mark.vm

NETWORK = Network(IPv4Interface("172.16.0.2/30"), IPv4Address("172.16.0.1"), (IPv4Address("172.16.0.1"),))


async def output(running: Running, script: str) -> str:
    ended, text = await running.run(script)
    assert ended.code == 0, text
    return text


async def test_a_clone_is_put_right_in_one_round_trip(vm: QemuVm) -> None:
    channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
    wish = Configure(
        clock_ns=time.time_ns(),
        entropy=os.urandom(64),
        hostname="sandbox",
        network=NETWORK,
        root=True,
        machine_id=bytes(range(16)),
        grow=True,
        environment={"COLOUR": "red"},
    )
    script = b"hostname; cat /etc/hostname /etc/machine-id /etc/resolv.conf; grep -c sandbox /etc/hosts; echo $COLOUR"
    configured, process = await channel.configure_and_exec(wish, Exec(script=script), timeout=TIMEOUT)
    assert configured.confirmed == wish.parts()
    outcome = await collect(process)
    machine_id = bytes(range(16)).hex()
    assert outcome.stdout.decode().split("\n") == [
        "sandbox",
        "sandbox",
        machine_id,
        "nameserver 172.16.0.1",
        "1",
        "red",
        "",
    ]
    assert abs(await channel.ping() - time.time()) < 30
    await collect(await channel.exec(Exec(script=b"echo 10.0.0.9 mine >> /etc/hosts")))
    # All of it again is nothing: the template may have been configured, and a woken VM is.
    again = Configure(hostname="sandbox", network=NETWORK, root=True, clock_ns=time.time_ns(), entropy=os.urandom(32))
    await channel.configure(again, timeout=TIMEOUT)
    hosts = await collect(await channel.exec(Exec(script=b"cat /etc/hosts")))
    assert hosts.stdout.endswith(b"127.0.1.1\tsandbox\n10.0.0.9 mine\n")
    routes = await collect(await channel.exec(Exec(script=b"ip -4 addr show eth0; ip route")))
    assert routes.stdout.count(b"172.16.0.2/30") == 1
    assert routes.stdout.count(b"default via 172.16.0.1 dev eth0") == 1
    await channel.aclose()


async def test_a_clone_answers_the_first_greeting(vm: QemuVm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mags.host.guest.channel.PATIENCE", (2 * TIMEOUT,))
    for _ in range(3):
        channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
        await channel.aclose()


async def test_clones_have_random_numbers_of_their_own(vmm: QemuVmm, running: Running, tmp_path: Path) -> None:
    script = "head -c 16 /dev/urandom | od -An -tx1"
    mine = await output(running, script)
    async with vms.cloned(vmm, tmp_path) as other, vms.running(other) as second:
        assert await output(second, script) != mine


async def test_the_world_of_a_process_looks_like_a_machine(running: Running) -> None:
    mounts = await output(running, "cat /proc/mounts")
    points = [line.split()[1] for line in mounts.splitlines()]
    assert points == ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run", "/run/mags"]
    assert await output(running, "unshare -r id -u") == "0\n", "it is no chroot to the kernel"
    process = await running.channel.exec(Exec(script=b"tty; echo x >/dev/tty", terminal=Terminal()))
    assert (await collect(process)).stdout == b"/dev/pts/0\r\nx\r\n"
    assert await output(running, "cat /proc/self/oom_score_adj; nice") == "0\n0\n"


async def test_a_guest_that_destroys_its_own_world_can_still_be_reached(running: Running) -> None:
    await running.channel.write_file("/root/kept", _pieces(b"kept"))
    await running.run("rm -rf /bin /sbin /usr /lib /etc /dev/* /run/* 2>/dev/null")
    channel = running.channel
    ended = (await collect(await channel.exec(Exec(script=b"echo x")))).exit
    assert (ended.code, ended.exit_code) == (None, 127)
    async with await channel.read_file("/root/kept") as reader:
        assert b"".join([piece async for piece in reader]) == b"kept"
    assert {"root", "proc"} <= {entry.name for entry in await channel.list_directory("/")}
    assert (await collect(await channel.exec(Exec(builtin=Builtin.WARM)))).stdout == b"warm\n"
    await channel.flush()
    await channel.stats()


async def _pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def test_killing_everything_does_not_kill_the_agent(running: Running) -> None:
    background = await running.channel.exec(Exec(script=b"sleep 1000"))
    await running.run("kill -9 -1")
    assert (await collect(background)).exit.signal == 9
    assert await output(running, "echo alive") == "alive\n"


async def test_a_full_disk_is_the_guests_own_affair(running: Running) -> None:
    ended, text = await running.run("fallocate -l 900M /big; dd if=/dev/zero of=/rest bs=1M")
    assert ended.code == 1 and "No space left" in text
    with pytest.raises(GuestError) as caught:
        await running.channel.write_file("/root/x", _endless())
    assert caught.value.errno_name == "ENOSPC"
    assert {entry.name for entry in await running.channel.list_directory("/root")} <= {".ash_history"}


async def _endless() -> AsyncIterator[bytes]:
    for _ in range(300):
        yield bytes(1 << 20)


async def test_a_frozen_disk_stops_writers_until_it_is_thawed(running: Running) -> None:
    channel = running.channel
    await channel.freeze(limit_s=300)
    writer = await channel.exec(Exec(script=b"echo x > /root/x; echo written"))
    reader = await channel.exec(Exec(script=b"cat /etc/os-release; echo read"))
    await read_until(reader, b"read\n")
    with pytest.raises(GuestError) as caught:
        await channel.freeze(limit_s=300)
    assert caught.value.errno_name == "EBUSY"
    with pytest.raises(GuestError, match="frozen"):
        await channel.configure(Configure(hostname="other"))
    assert writer.exit is None
    await channel.thaw()
    assert (await collect(writer)).stdout == b"written\n"
    await collect(reader)


async def test_a_disk_that_the_host_forgets_thaws_by_itself_and_says_so(running: Running) -> None:
    channel = running.channel
    await channel.freeze(limit_s=0.2)
    writer = await channel.exec(Exec(script=b"echo x > /root/x; echo written"))
    assert (await collect(writer)).stdout == b"written\n"
    with pytest.raises(GuestError) as caught:
        await channel.thaw()
    assert caught.value.errno_name == "ETIMEDOUT"


async def test_hosts_that_die_in_full_flow_lose_nothing(vm: QemuVm) -> None:
    async with vms.running(vm) as world:
        process = await world.channel.exec(Exec(script=b"seq 1 60000; echo end >&2; exit 3"))
        id = process.id
    got, errors, ended = b"", b"", None
    for _ in range(500):
        channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
        resumed = channel.attach(id, Offsets(len(got), len(errors)))
        async with asyncio.timeout(TIMEOUT):
            for _ in range(4):
                piece = await resumed.next_output()
                if piece is None:
                    ended = await resumed.wait()
                    break
                if piece.stream == 1:
                    got += piece.data
                else:
                    errors += piece.data
                resumed.acknowledge(piece.stream, piece.offset + len(piece.data))
        if ended is not None:
            await resumed.release()
            await channel.ping()
        elif len(got) % 3 == 0:
            # Die with half a frame under way, as a killed process does.
            channel._wire.transport.write(b"MG\x04\0\x01\0\0\0\0\x10\0\0")
        await channel.aclose()
        if ended is not None:
            break
    assert got == "".join(f"{n}\n" for n in range(1, 60001)).encode()
    assert (errors, ended.code if ended else None) == (b"end\n", 3)


@pytest.mark.parametrize("script", ["reboot -f", "poweroff -f", "echo b > /proc/sysrq-trigger"])
async def test_a_guest_that_ends_itself_ends_the_channel(running: Running, script: str) -> None:
    process = await running.channel.exec(Exec(script=script.encode()))
    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(process.wait(), TIMEOUT)


async def test_poweroff_flushes_and_ends_the_machine(running: Running) -> None:
    await running.channel.exec(Exec(script=b"sleep 1000"))
    await running.channel.poweroff()
    await asyncio.wait_for(asyncio.shield(running.channel.closed), TIMEOUT)
