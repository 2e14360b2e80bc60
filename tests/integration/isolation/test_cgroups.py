"""Control groups of this machine's kernel."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from mags.host.isolation import Cgroups

EAT = "import sys; sys.stdin.readline(); block = bytearray(int(sys.argv[1]) << 20); print(len(block))"


@pytest.fixture
async def groups() -> AsyncIterator[Cgroups]:
    found = Cgroups.detect(f"t{secrets.token_hex(3)}")
    assert found.version in (1, 2), "this machine has no control groups"
    yield found
    await found.sweep(())
    found.close()


def eat(groups: Cgroups, name: str, megabytes: int) -> subprocess.CompletedProcess[bytes]:
    group = groups.create(name, memory_mb=16, vcpus=1)
    assert group is not None
    with subprocess.Popen(
        [sys.executable, "-c", EAT, str(megabytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        group.attach(child.pid)
        assert group.pids() == {child.pid}
        output, _ = child.communicate(b"\n", timeout=60)
        return subprocess.CompletedProcess([], child.returncode, output)


async def test_memory_is_bounded(groups: Cgroups) -> None:
    assert eat(groups, "modest", 64).returncode == 0
    assert eat(groups, "greedy", 700).returncode == -9


async def test_the_number_of_processes_is_bounded(groups: Cgroups) -> None:
    group = groups.create("bomb", memory_mb=64, vcpus=1, pids=5)
    assert group is not None
    script = "import os, sys; sys.stdin.readline(); [os.fork() or os._exit(os.read(0, 1) and 0) for _ in range(20)]"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        group.attach(child.pid)
        assert child.stdin is not None and child.stderr is not None
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.wait(60) == 1
        child.stdin.close()
        assert "BlockingIOError" in child.stderr.read()
    await group.destroy()


async def test_what_is_left_in_a_group_ends_with_it(groups: Cgroups) -> None:
    group = groups.create("left", memory_mb=64, vcpus=1)
    assert group is not None
    child = subprocess.Popen(["sleep", "600"])
    group.attach(child.pid)
    await group.destroy()
    await group.destroy()
    assert child.wait(60) == -9
    assert groups.adopt("left") is None


async def test_a_restarted_host_keeps_what_it_knows(groups: Cgroups) -> None:
    for name in ("kept", "orphan"):
        groups.create(name, memory_mb=64, vcpus=1)
    again = Cgroups.detect(groups.installation)
    assert await again.sweep(["kept"]) == ["orphan"]
    assert again.adopt("orphan") is None
    kept = again.adopt("kept")
    assert kept is not None and kept.pids() == set()
    assert kept.directories[0].is_dir()
