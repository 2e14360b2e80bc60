"""What a file in a workspace carries beside its bytes is there in the next VM."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mags.protocol.ids import new_id
from tests.vm.storage.conftest import Bench, Box

pytestmark = pytest.mark.vm

SOURCE = Path(__file__).with_name("metadata.c")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program for the guest, whose image has no tools for most of this."""
    made = tmp_path_factory.mktemp("metadata") / "metadata"
    words = ["musl-gcc", "-std=gnu11", "-Wall", "-Werror", "-static", "-O1", "-s", "-o", str(made), str(SOURCE)]
    subprocess.run(words, check=True, timeout=120)
    return made.read_bytes()


async def look(box: Box) -> str:
    return await box.run("/usr/local/bin/metadata look /root/all; ls /root/all | wc -l")


async def test_everything_that_a_file_carries_is_there_in_the_next_vm(bench: Bench, program: bytes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield program

    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.channel.write_file("/usr/local/bin/metadata", pieces(), mode=0o755)
    await box.run("mkdir /root/all; metadata make /root/all")
    before = await look(box)
    for fact in (
        "attributes security.capability 20 bytes",
        "listed system.posix_acl_access 44 bytes",
        "attributes trusted.secret 1 bytes",
        "attributes user.long 3000 bytes",
        "setuid mode 106755",
        "owned mode 100640 owner 1234:5678",
        "character mode 20640 owner 0:0 links 1 device 1:7",
        "block mode 60600 owner 0:0 links 1 device 7:300",
        "socket mode 140",
        "time -5.987654321",
        "a hole from",
        "hard: 1",
        "/etc/motd: No such file",
    ):
        assert fact in before, before
    await box.syncer.sync()
    await bench.end(box)
    # Once after a death, once after an orderly end; and what is there can be changed as ever.
    second = await bench.start(bench.attachment(workspace))
    assert await look(second) == before
    await second.syncer.settle()
    await bench.end(second)
    third = await bench.start(bench.attachment(workspace))
    assert await look(third) == before
    assert await third.run("echo more >> /root/all/attributes; tail -c 5 /root/all/directory/hard") == "more\n"
