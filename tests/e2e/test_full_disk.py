"""The disk under a host fills up: new jobs are refused with the reason, what runs goes on as long as there is a byte,
and then stands still until there is one again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_bad_days import call
from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]


@pytest.fixture
def mags(base_image: None) -> Iterator[Installation]:
    """All that it keeps (records, messages, VMs, logs) is on a disk of its own, of 4 GB; it has no pool."""
    made = Installation(environment={"MAGS_HOST_POOL_TARGET": "0", "MAGS_HOST_DISK_RESERVE_GB": "1"})
    place, disk = made.folder / "disk", made.folder / "disk.img"
    made.data = place / "d"
    made.environment["MAGS_UP_DATA_DIR"] = str(made.data)
    place.mkdir()
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", disk], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True, timeout=60)
    try:
        with made:
            yield made
    finally:
        subprocess.run(["umount", place], check=True, timeout=60)
        shutil.rmtree(made.folder)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def accepting(mags: Installation) -> bool:
    return all(host["accepting"] for host in mags.json("pool")["hosts"])


def grow(file: Path, *, leave: int) -> None:
    """Take the disk's room but for some bytes."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        free = shutil.disk_usage(file.parent).free
        os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, max(1, free - leave))
    finally:
        os.close(descriptor)


def fill(file: Path) -> None:
    """Take every byte that is left."""
    with file.open("ab", buffering=0) as growing, pytest.raises(OSError, match="No space left"):
        while True:
            growing.write(bytes(1 << 12))


def counted(mags: Installation) -> list[int]:
    return [int(line) for line in mags.out("logs", "counter").splitlines()]


def stuck(mags: Installation) -> bool:
    """Whether nothing that is said reaches those who listen."""
    before = len(counted(mags))
    time.sleep(4)
    return len(counted(mags)) == before


def test_a_full_disk_stops_new_jobs_and_nothing_else(mags: Installation) -> None:
    whole = hashlib.sha256(bytes(64_000_000)).hexdigest()
    mags.cli("new", "box")
    mags.cli("run", "-p", "-d", "-n", "cook", "-w", "pantry", "echo flour > /root/shelf")
    job = mags.out("run", "-d", "-n", "counter", "i=0; while ! [ -e /tmp/stop ]; do echo $i; i=$((i+1)); sleep 1; done")
    until(lambda: mags.json("status", "counter")["status"] == "running" and len(counted(mags)) > 1)
    until(lambda: mags.json("status", "cook")["status"] == "running")
    mags.cli("sync", "cook")
    filler = mags.data / "filler"
    grow(filler, leave=512 << 20)  # below the reserve
    until(lambda: not accepting(mags))

    with pytest.raises(urllib.error.HTTPError) as refused:
        call(mags, "POST", "/mags-jobs", {"script": "true"})
    assert refused.value.code == 503 and "disk" in refused.value.read().decode()
    hopeful = mags.popen("run", "true")  # it tries for a while
    before = len(counted(mags))
    assert mags.out("exec", "box", "echo goes on; echo x > /root/small; sync; cat /root/small") == "goes on\nx\n"
    until(lambda: len(counted(mags)) > before + 1)

    grow(filler, leave=16 << 20)  # too little for the memory of a VM, or for a sync
    mags.cli("exec", "cook", "echo sugar >> /root/shelf; sync")
    kept = mags.cli("sleep", "box", check=False)
    assert kept.returncode != 0 and b"can't be saved: the host's disk is full" in kept.stderr
    assert mags.out("exec", "box", "cat /root/small") == "x\n"
    assert mags.json("status", "box")["status"] == "running"
    unsaved = mags.cli("sync", "cook", check=False)
    assert unsaved.returncode != 0 and b"disk" in unsaved.stderr and b"make room" in unsaved.stderr

    # To the last byte: who writes now stands still until there is room, and sees no error. What VMs say waits in them.
    fill(filler)
    write = "head -c 64000000 /dev/zero >/root/large && sync; echo $? >/root/written"
    mags.cli("exec", "box", f"({write}) >/dev/null 2>&1 &")
    until(lambda: stuck(mags))
    with pytest.raises(urllib.error.HTTPError) as refused:
        call(mags, "POST", "/mags-jobs", {"script": "true"})
    assert refused.value.code == 503 and "disk" in refused.value.read().decode()
    _, words = hopeful.communicate(timeout=120)
    assert hopeful.returncode == 125 and b"disk" in words and b"full" in words

    filler.unlink()
    until(lambda: accepting(mags))
    until(lambda: not stuck(mags))
    assert mags.out("exec", "box", "until test -s /root/written; do sleep 0.2; done; cat /root/written") == "0\n"
    assert mags.out("run", "echo again") == "again\n"
    assert mags.out("exec", "box", "cat /root/small") == "x\n"
    mags.cli("sleep", "box")
    assert mags.out("exec", "box", "sha256sum < /root/large").split()[0] == whole
    assert mags.out("exec", "counter", "touch /tmp/stop; echo told") == "told\n"
    until(lambda: mags.json("status", job.strip())["status"] == "completed")
    numbers = counted(mags)
    assert numbers == list(range(len(numbers)))
    mags.cli("sync", "cook")
    mags.cli("stop", "cook")
    assert mags.out("run", "-w", "pantry", "cat /root/shelf") == "flour\nsugar\n"
