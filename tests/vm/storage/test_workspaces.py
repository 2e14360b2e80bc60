"""Workspaces in real VMs: what a guest writes is there in the next one."""

from __future__ import annotations

import asyncio

import pytest

from mags.host.storage.config import StorageSettings
from mags.host.storage.errors import StaleEpoch
from mags.host.storage.syncer import recover
from mags.protocol.ids import new_id
from tests.kit.objectstore import count_blocks
from tests.vm.storage.conftest import ON_BOTH, ON_S3, Bench

pytestmark = pytest.mark.vm

EVERYTHING = r"""
cd /root && mkdir -p d/e && echo text > d/e/f && ln d/e/f hard && ln -s d/e/f soft
chmod 4711 d/e/f && chown 12:34 d/e && rm -f /etc/motd && echo changed > /etc/issue
dd if=/dev/zero of=sparse bs=1 count=1 seek=50M 2>/dev/null
mkfifo pipe; setfattr -n user.color -v blue d/e/f 2>/dev/null || true
find / -xdev -type f 2>/dev/null | grep -v '^/proc\|^/sys' | sort | head -3000 | xargs md5sum 2>/dev/null | md5sum
"""
LOOK = r"""
cd /root && cat soft && stat -c '%a %u %g %h' d/e/f && stat -c '%u %g' d/e && test ! -e /etc/motd && cat /etc/issue
stat -c '%s' sparse; du -k sparse | cut -f1; test -p pipe && echo pipe
"""


@ON_BOTH
async def test_all_kinds_of_changes_are_there_in_the_next_vm(bench: Bench) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.run(EVERYTHING)
    said = await box.run(LOOK)
    synced = await box.syncer.sync()
    assert synced.bytes > 0
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace))
    assert await again.run(LOOK) == said
    assert said.split()[:6] == ["text", "4711", "0", "0", "2", "12"]


@ON_S3
async def test_second_sync_carries_only_what_changed(bench: Bench) -> None:
    box = await bench.start(bench.attachment(new_id()))
    await box.run("dd if=/dev/urandom of=/root/big bs=1M count=30 2>/dev/null")
    first = await box.syncer.sync()
    await box.run("dd if=/dev/urandom of=/root/small bs=1M count=1 2>/dev/null")
    second = await box.syncer.sync()
    third = await box.syncer.sync()
    assert first.bytes >= 30 << 20
    assert 1 << 20 <= second.bytes < 3 << 20
    assert (third.bytes, third.generation) == (0, second.generation)


@ON_S3
async def test_what_is_synced_survives_any_death_and_is_a_whole_file_system(bench: Bench) -> None:
    """A writer runs all the time; the VM is killed after a sync. Each file that was there is whole."""
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.run(
        "(i=0; while :; do i=$((i+1)); head -c 3000 /dev/urandom > /root/$i.tmp;"
        " md5sum < /root/$i.tmp > /root/$i.sum; mv /root/$i.tmp /root/$i; done) >/dev/null 2>&1 &"
    )
    await box.run("sleep 0.5; echo before > /root/marker")
    await box.syncer.sync()
    await box.run("echo after > /root/marker")
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace))
    script = (
        "cat /root/marker; bad=0; n=0; for f in /root/*[0-9]; do n=$((n+1));"
        ' [ "$(md5sum < $f)" = "$(cat $f.sum)" ] || bad=$((bad+1)); done; echo $n $bad'
    )
    marker, count, bad = (await again.run(script)).split()
    assert (marker, bad) == ("before", "0") and int(count) > 0


@ON_S3
async def test_forks_diverge(bench: Bench) -> None:
    base, fork = new_id(), new_id()
    box = await bench.start(bench.attachment(base))
    await box.run("echo base > /root/f")
    await box.syncer.sync()
    number = bench.rows.generation[base]
    one = await bench.start(bench.attachment(fork, base=base, base_generation=number))
    throw_away = await bench.start(bench.attachment(new_id(), base=base, base_generation=number, discard=True))
    await box.run("echo changed > /root/f")
    await box.syncer.sync()
    assert await one.run("cat /root/f") == "base\n" == await throw_away.run("cat /root/f; echo x > /root/f")
    await one.run("echo fork > /root/f")
    await one.syncer.sync()
    await bench.end(box)
    await bench.end(one)
    await bench.engine.workspaces.delete(base)
    again = await bench.start(bench.attachment(fork))
    assert await again.run("cat /root/f") == "fork\n"
    assert await throw_away.run("cat /root/f") == "x\n"


@ON_S3
async def test_deletion_frees_every_block_in_the_store(bench: Bench, storage: StorageSettings) -> None:
    await bench.engine.workspaces.blank(1)
    empty = await count_blocks(storage)
    base, fork = new_id(), new_id()
    box = await bench.start(bench.attachment(base))
    await box.run("head -c 9000000 /dev/urandom > /root/f")
    await box.syncer.sync()
    one = await bench.start(bench.attachment(fork, base=base, base_generation=bench.rows.generation[base]))
    for number in range(3):
        await one.run(f"head -c 1000000 /dev/urandom > /root/{number}")
        await one.syncer.sync()
    await bench.end(box)
    await bench.engine.workspaces.delete(base)
    await bench.engine.collect()
    assert await one.run("wc -c < /root/f") == "9000000\n" and await count_blocks(storage) > empty
    await bench.end(one)
    await bench.engine.workspaces.delete(fork)
    await bench.engine.collect()
    async with asyncio.timeout(60):
        while await count_blocks(storage) != empty:
            await asyncio.sleep(0.2)


async def test_disk_grows_and_keeps_its_files(bench: Bench) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    before = int(await box.run("echo x > /root/f; df -k / | tail -1 | awk '{print $2}'"))
    await box.syncer.sync()
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace, disk_gb=2))
    after = int(await again.run("cat /root/f >/dev/null; df -k / | tail -1 | awk '{print $2}'"))
    assert after > 1.9 * before
    await again.run("dd if=/dev/zero of=/root/big bs=1M count=1 2>/dev/null")
    await again.syncer.sync()
    await bench.end(again)
    third = await bench.start(bench.attachment(workspace, disk_gb=2))
    assert await third.run("cat /root/f; ls /root") == "x\nbig\nf\n"


async def test_full_disk_is_the_guests_affair_and_syncs(bench: Bench) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    left = int(await box.run("echo kept > /root/f; df -k / | tail -1 | awk '{print $4}'"))
    await box.run(f"fallocate -l {left - 4096}k /root/fill")
    ended, output = await box.attempt("dd if=/dev/urandom of=/root/more bs=1M count=10")
    assert ended.code == 1 and "No space left on device" in output
    await box.syncer.sync()
    await box.run("rm /root/fill /root/more")
    await box.syncer.sync()
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace))
    assert await again.run("cat /root/f") == "kept\n"


async def test_settled_vm_writes_nothing_behind_its_last_sync(bench: Bench) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.run("(i=0; while :; do i=$((i+1)); echo $i >> /root/log; done) >/dev/null 2>&1 &")
    await box.syncer.settle()
    await box.vm.pause()
    await box.vm.resume()
    await box.syncer.resume()
    await box.run("tail -1 /root/log")


async def test_dead_vm_loses_nothing_that_it_had_flushed(bench: Bench) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.run("echo one > /root/one")
    await box.syncer.sync()
    await box.run("echo two > /root/two; sync")
    await box.vm.process.kill()
    size = box.attached.size
    number = await recover(box.attached, lambda draft: bench.vmm.salvage(box.vm.directory, draft, size))
    bench.rows.generation[workspace] = number
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace))
    assert await again.run("cat /root/one /root/two") == "one\ntwo\n"


async def test_stale_owner_is_refused(bench: Bench) -> None:
    workspace = new_id()
    old = await bench.start(bench.attachment(workspace))
    await old.run("echo old > /root/f")
    new = await bench.start(bench.attachment(workspace))
    await new.run("echo new > /root/f")
    await new.syncer.sync()
    with pytest.raises(StaleEpoch):
        async with asyncio.timeout(60):
            await old.syncer.run(0.01)
    await bench.end(old)
    await bench.end(new)
    again = await bench.start(bench.attachment(workspace))
    assert await again.run("cat /root/f") == "new\n"


async def test_fork_of_a_fork_of_twenty_forks(bench: Bench) -> None:
    """Each is deleted as soon as the next is made: nothing is read through another."""
    first = new_id()
    box = await bench.start(bench.attachment(first))
    await box.run("head -c 3000000 /dev/urandom > /root/f; md5sum /root/f > /root/sum; echo straight > /jfs-mark")
    await box.syncer.sync()
    await bench.end(box)
    last = first
    for _ in range(19):
        fork = new_id()
        attachment = bench.attachment(fork, base=last, base_generation=bench.rows.generation[last])
        attached = await bench.engine.workspaces.attach(attachment, vm_id=new_id())
        bench.rows.generation[fork] = attached.generation
        await attached.release()
        await bench.engine.workspaces.delete(last)
        last = fork
    end = new_id()
    box = await bench.start(bench.attachment(end, base=last, base_generation=bench.rows.generation[last]))
    await bench.engine.workspaces.delete(last)
    await bench.engine.collect()
    assert await box.run("md5sum -c /root/sum; cat /jfs-mark; echo more > /root/g") == "/root/f: OK\nstraight\n"
    await box.syncer.sync()
    await bench.end(box)
    again = await bench.start(bench.attachment(end))
    assert await again.run("md5sum -c /root/sum; cat /root/g") == "/root/f: OK\nmore\n"
    assert len(await bench.engine.workspaces.manifests()) == 1
