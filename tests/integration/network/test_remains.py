"""What a host program has left in the kernel that was killed: found, and removed when nobody else can want it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mags.host import remains
from mags.host.network import NamespacePool
from mags.host.network.claims import claim, unused
from tests.integration.network.test_pool import devices, tables
from tests.kit.networks import World

HOLDER = """
import asyncio, sys
from pathlib import Path
from mags.host.network import NamespacePool
async def main():
    pool = await NamespacePool.open(Path(sys.argv[1]), runtime=Path(sys.argv[2]), target=0)
    for _ in range(2):
        await pool.take()
    print(pool.installation, flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


class Holder:
    """A program with two networks; killed at the latest by its end."""

    def __init__(self, state: Path, runtime: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", HOLDER, state, runtime], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        with self.process.stdout as said:
            self.installation = said.readline().decode().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def links(self) -> list[str]:
        return [name for name in devices() if name.startswith(f"mg{self.installation}-")]


async def test_what_is_left_goes_when_its_data_are_gone_and_not_before(
    world: World, tmp_path: Path, runtime: Path
) -> None:
    dead, living = Holder(tmp_path / "dead", runtime), Holder(tmp_path / "living", runtime)
    try:
        shutil.rmtree(tmp_path / "living")
        dead.kill()
        assert await remains.clear_abandoned(runtime) == []
        assert len(dead.links) == len(living.links) == 2
        shutil.rmtree(tmp_path / "dead")
        assert await remains.clear_abandoned(runtime) == [tmp_path / "dead"]
        assert dead.links == [] and dead.installation not in tables() and not (runtime / dead.installation).exists()
        assert len(living.links) == 2 and living.installation in tables()
    finally:
        dead.kill()
        living.kill()
    assert await remains.clear_abandoned(runtime) == [tmp_path / "living"]
    assert living.links == [] and list(runtime.iterdir()) == []


async def test_one_installation_is_cleared_when_its_program_is_gone(
    world: World, tmp_path: Path, runtime: Path
) -> None:
    left = Holder(tmp_path / "state", runtime)
    try:
        with pytest.raises(remains.NotCleared, match="end it before"):
            await remains.clear(tmp_path / "state", runtime)
        assert len(left.links) == 2
    finally:
        left.kill()
    for _ in range(2):
        await remains.clear(tmp_path / "state", runtime)
        assert left.links == [] and left.installation not in tables() and list(runtime.iterdir()) == []
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0)
    assert pool.installation == left.installation
    await pool.aclose()


async def test_nothing_is_cleared_where_nothing_was(tmp_path: Path) -> None:
    await remains.clear(tmp_path / "state", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


async def test_only_processes_of_that_state_are_ended(tmp_path: Path) -> None:
    """Stand-ins with the command lines of ours."""
    mine, others = tmp_path / "mine", tmp_path / "mine-not"
    program = tmp_path / "qemu-system-x86_64"
    program.symlink_to(shutil.which("sleep") or "")
    sleeper = "import time; time.sleep(1000)"
    processes = {
        name: subprocess.Popen([str(word) for word in words])
        for name, words in {
            "vm": [sys.executable, "-c", sleeper, program, "-name", mine / "vms" / "x"],
            "other": [sys.executable, "-c", sleeper, program, "-name", others / "vms" / "x"],
            "editor": [sys.executable, "-c", sleeper, "-name", mine / "vms" / "x"],
        }.items()
    }
    try:
        mine.mkdir()
        (mine / "network-id").write_text("abcdef")
        assert remains.hypervisors(mine) == [processes["vm"].pid]
        await remains.clear(mine, tmp_path / "run")
        assert processes["vm"].wait(timeout=60) == -9
        assert processes["other"].poll() is None and processes["editor"].poll() is None
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


async def test_a_mount_below_the_state_is_taken_away(tmp_path: Path) -> None:
    state = tmp_path / "the state"
    (state / "storage" / "mnt").mkdir(parents=True)
    (state / "network-id").write_text("abcdef")
    subprocess.run(["mount", "-t", "tmpfs", "none", state / "storage" / "mnt"], check=True)
    try:
        await remains.clear(state, tmp_path / "run")
        assert not (state / "storage" / "mnt").is_mount()
    finally:
        subprocess.run(["umount", state / "storage" / "mnt"], check=False, capture_output=True)


async def test_who_claims_a_directory_while_it_is_removed_gets_a_new_one(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "abcdef"
    os.close(claim(directory, tmp_path / "state"))
    with unused(directory) as nobodys:
        assert nobodys
        claiming = asyncio.create_task(asyncio.to_thread(claim, directory, tmp_path / "state"))
        while not _is_waited_for(directory / "owner"):
            await asyncio.sleep(0.01)
        (directory / "owner").unlink()
        directory.rmdir()
    descriptor = await claiming
    assert os.path.samestat(os.fstat(descriptor), (directory / "owner").stat())
    with unused(directory) as nobodys:
        assert not nobodys
    os.close(descriptor)


def _is_waited_for(file: Path) -> bool:
    """Whether somebody waits for a lock of it (proc_locks(5): `N: -> FLOCK ADVISORY READ PID DEVICE:INODE ...`)."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(words[6].rpartition(":")[2] == str(file.stat().st_ino) for words in waiting)
