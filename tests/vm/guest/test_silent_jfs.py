"""A server of /jfs that has gone silent holds up those who use it, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

from mags.host.guest import Channel, Configure, Exec
from mags.protocol.ids import new_id
from tests.guest.kit import collect
from tests.kit.vms import TIMEOUT
from tests.vm.storage.conftest import Bench

pytestmark = pytest.mark.vm


async def echo(channel: Channel) -> bytes:
    return (await collect(await channel.exec(Exec(script=b"echo fine")))).stdout


async def test_the_agent_answers_while_jfs_is_silent(bench: Bench) -> None:
    await bench.prepare_network()
    box = await bench.start(bench.attachment(new_id()), jfs=True)
    channel = box.channel
    await box.run("mkdir -p /jfs/bin /jfs/home; printf '#!/bin/sh\\necho ran' > /jfs/bin/tool; chmod +x /jfs/bin/tool")
    ran = await collect(await channel.exec(Exec(argv=["/jfs/bin/tool"])))
    assert ran.stdout == b"ran\n"
    missing = await collect(await channel.exec(Exec(argv=["/jfs/bin/other"])))
    assert missing.exit.exit_code == 127 and b"No such file" in missing.stderr
    await bench.exports.close()

    # Whatever the kernel had kept of these names is dropped, so that each of them must ask.
    await box.run("echo 3 > /proc/sys/vm/drop_caches; (ls /jfs >/dev/null 2>&1 &)")
    stuck = [
        await channel.exec(Exec(argv=["true"], cwd="/jfs/home")),
        await channel.exec(Exec(argv=["/jfs/bin/tool"])),
        await channel.exec(Exec(argv=["tool"], environment={"PATH": "/jfs/bin:/bin"})),
        await channel.exec(Exec(script=b"cat /jfs/home/file", timeout_ms=500)),
    ]
    listing = asyncio.create_task(channel.list_directory("/jfs/home"))
    for _ in range(5):
        async with asyncio.timeout(TIMEOUT):
            await channel.ping()
            assert await echo(channel) == b"fine\n"
            await channel.stats()
            await channel.flush()
    assert (await stuck[3].wait()).timed_out
    for process in stuck:
        await process.release()
    listing.cancel()
    await asyncio.gather(listing, return_exceptions=True)
    await channel.configure(Configure(unmount_jfs=True), timeout=TIMEOUT)
    assert await echo(channel) == b"fine\n"
    await channel.poweroff()
    await asyncio.wait_for(asyncio.shield(channel.closed), TIMEOUT)
