"""The disk under a host fills up to its last byte: new jobs are refused with the reason, what runs goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_bad_days import call
from tests.kit.installation import CACHE, Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]


@pytest.fixture
def mags(base_image: None) -> Iterator[Installation]:
    """Its host's directory is a disk of its own, of 4 GB; it has no pool."""
    made = Installation(environment={"MAGS_HOST_POOL_TARGET": "0", "MAGS_HOST_DISK_RESERVE_GB": "1"})
    host = made.data / "host"
    host.mkdir(parents=True)
    disk = made.folder / "disk.img"
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", disk], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", disk, host], check=True, timeout=60)
    try:
        shared = CACHE / "vmm" / "templates"  # the same in all tests, and what takes longest to make
        shared.mkdir(parents=True, exist_ok=True)
        (host / "templates").symlink_to(shared)
        with made:
            yield made
    finally:
        subprocess.run(["umount", host], check=True, timeout=60)
        shutil.rmtree(made.folder)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def accepting(mags: Installation) -> bool:
    return all(host["accepting"] for host in mags.json("pool")["hosts"])


def fill(file: Path) -> None:
    """Take every byte that is left."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.posix_fallocate(descriptor, 0, max(1, shutil.disk_usage(file.parent).free - (16 << 20)))
        with pytest.raises(OSError, match="No space left"):
            while True:
                os.write(descriptor, bytes(1 << 12))
    finally:
        os.close(descriptor)


def test_a_full_disk_stops_new_jobs_and_nothing_else(mags: Installation) -> None:
    mags.cli("new", "box")
    job = mags.out("run", "-d", "-n", "counter", "i=0; while ! [ -e /tmp/stop ]; do echo $i; i=$((i+1)); sleep 1; done")
    until(lambda: mags.json("status", "counter")["status"] == "running" and "1\n" in mags.out("logs", "counter"))
    filler = mags.data / "host" / "filler"
    fill(filler)
    until(lambda: not accepting(mags))

    with pytest.raises(urllib.error.HTTPError) as refused:
        call(mags, "POST", "/mags-jobs", {"script": "true"})
    assert refused.value.code == 503 and "disk" in refused.value.read().decode()
    done = mags.cli("run", "true", check=False)
    assert done.returncode == 125 and b"disk" in done.stderr and b"full" in done.stderr
    before = len(mags.out("logs", "counter").splitlines())
    assert mags.out("exec", "box", "echo goes on; echo x > /root/small; cat /root/small") == "goes on\nx\n"
    until(lambda: len(mags.out("logs", "counter").splitlines()) > before + 1)
    assert mags.out("exec", "counter", "touch /tmp/stop; echo told") == "told\n"
    until(lambda: mags.json("status", job.strip())["status"] == "completed")

    filler.unlink()
    until(lambda: accepting(mags))
    assert mags.out("run", "echo again") == "again\n"
    assert mags.out("exec", "box", "cat /root/small") == "x\n"
