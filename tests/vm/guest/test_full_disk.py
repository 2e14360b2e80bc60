"""A workspace whose disk its user has filled, or taken apart, comes up again, so that he can put that right."""

from __future__ import annotations

import pytest

from mags.protocol.ids import new_id
from tests.vm.storage.conftest import Bench

pytestmark = pytest.mark.vm

FILL = "fallocate -l 700M /root/most; cat /dev/zero > /root/rest; i=0; while echo $i > /root/$i; do i=$((i+1)); done"


async def test_a_full_disk_comes_up_again(bench: Bench) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.attempt(f"({FILL}) 2>/dev/null")
    ended, text = await box.attempt("echo more > /root/more")
    assert ended.code != 0 and "No space left" in text
    await box.syncer.sync()
    await bench.end(box)
    for _ in range(2):
        box = await bench.start(bench.attachment(workspace))
        assert await box.run("hostname; cat /etc/hostname") == "mags-vm\nmags-vm\n"
        await bench.end(box)
    again = await bench.start(bench.attachment(workspace))
    assert await again.run("rm /root/rest; echo more > /root/more; cat /root/more") == "more\n"


APART = (
    "umount -l /run/mags /run /sys; rm -rf /run /sys /etc; ln -s /mods /run; ln -s / /sys; mkdir -p /etc/hostname;"
    "ln -s /nowhere/else /etc/resolv.conf"
)


async def test_a_world_that_was_taken_apart_comes_up_again(bench: Bench) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.run(f"{APART}; echo kept > /root/f")
    await box.syncer.sync()
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace))
    assert await again.run("hostname; cat /root/f; ls -d /sys/kernel; ls /run") == "mags-vm\nkept\n/sys/kernel\nmags\n"
    assert await again.run("cat /proc/mounts | grep -c ' /run tmpfs'") == "1\n"
