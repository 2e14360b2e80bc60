"""/jfs as the guest's own kernel mounts it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mags.host.jfs import Exports
from mags.protocol.ids import new_id
from tests.vm.storage.conftest import Bench

pytestmark = pytest.mark.vm

WORK = r"""
set -e
cd /jfs && mkdir -p a/b && echo text > a/b/f && ln a/b/f hard && ln -s a/b/f soft && chmod 640 hard && chown 12:34 a/b
test "$(cat soft)" = text && test "$(stat -c %h hard)" = 2
dd if=/dev/urandom of=big bs=64k count=200 2>/dev/null && md5sum big > sum && md5sum -c sum >/dev/null
dd if=/dev/zero of=big bs=1 seek=100 count=1 conv=notrunc 2>/dev/null
truncate -s 1000 big && test "$(stat -c %s big)" = 1000
mv a/b/f moved && test ! -e a/b/f && echo more >> moved && test "$(wc -l < hard)" = 2
for i in $(seq 150); do echo $i > many-$i; done; test "$(ls | grep -c many)" = 150
rm -rf many-* a; ls | sort | tr '\n' ' '
"""


@pytest.mark.parametrize("names_root", [True, False], ids=["its root is told", "its root is asked for"])
async def test_files_in_jfs_are_on_the_volume_at_once(bench: Bench, names_root: bool) -> None:
    await bench.prepare_network()
    bench.names_root = names_root
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace), jfs=True)
    assert (await box.run(WORK)).split() == ["big", "hard", "moved", "soft", "sum"]
    assert (box.attached.jfs / "moved").read_text() == "text\nmore\n"
    assert (box.attached.jfs / "big").stat().st_size == 1000
    (box.attached.jfs / "from-outside").write_text("hello")
    assert await box.run("cat /jfs/from-outside") == "hello"
    _, output = await box.attempt("mknod /jfs/dev c 1 3 2>&1; cat /jfs/../../../../etc/hostname")
    assert "ermitted" in output
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace), jfs=True)
    assert await again.run("cat /jfs/moved; ls -l /jfs/hard | cut -c1-10") == "text\nmore\n-rw-r-----\n"


async def test_a_writer_goes_on_over_restarts_of_server_and_volume(bench: Bench) -> None:
    await bench.prepare_network()
    box = await bench.start(bench.attachment(new_id()), jfs=True)
    await box.run(
        "(exec 3>/jfs/log; i=0; while [ ! -e /jfs/enough ]; do i=$((i+1)); echo $i >&3; sleep 0.02; done;"
        " exec 3>&-; echo $i > /jfs/last) >/dev/null 2>&1 &"
    )
    await box.run("while [ ! -s /jfs/log ]; do sleep 0.1; sync; done")
    served = next(iter(bench.exports._served))
    address = bench.exports._served[served][3].sockets[0].getsockname()[0]
    await bench.exports.close()
    bench.exports = await Exports.open(bench.place, port=bench.jfs_port)
    bench._stack.push_async_callback(bench.exports.close)
    await bench.exports.add(served, address, box.attached.jfs)
    await box.run("echo x > /jfs/after-server")
    for pid in bench.engine.mount._processes():
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while bench.engine.mount.remounts == 0:
            await asyncio.sleep(0.1)
    await box.run("echo x > /jfs/after-volume; touch /jfs/enough; while [ ! -s /jfs/last ]; do sleep 0.1; done")
    last = int((box.attached.jfs / "last").read_text())
    assert (box.attached.jfs / "log").read_text().split() == [str(number) for number in range(1, last + 1)]
