"""Files that stay: what a run leaves in its workspace, the next one finds, in whatever VM."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.kit import users
from tests.kit.installation import MAGS, Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


def test_a_file_of_one_run_is_there_in_the_next(mags: Installation) -> None:
    mags.out("run", "-w", "p", "echo x > /root/f")
    assert mags.out("run", "-w", "p", "cat /root/f") == "x\n"
    assert mags.json("status", "p")["start_kind"] in ("parked", "warm")


def test_another_vm_has_every_kind_of_change(mags: Installation) -> None:
    mags.out(
        "run",
        "-w",
        "kinds",
        """
set -e
echo one > /etc/of-mine; rm /etc/motd; mkdir -p /root/d/e; ln -s ../f /root/d/link
echo text > /root/f; ln /root/f /root/hard; chmod 4711 /root/f; chown 1234:567 /root/d
dd if=/dev/zero of=/root/sparse bs=1 count=1 seek=50000000 2>/dev/null; mkfifo /root/pipe
head -c 300000 /dev/urandom > /root/random; sha256sum /root/random > /root/sum; echo kept > /jfs/shared
""",
    )
    mags.cli("stop", "kinds")
    out = mags.out(
        "run",
        "-w",
        "kinds",
        """
cat /etc/of-mine; [ -e /etc/motd ] || echo no motd; readlink /root/d/link; stat -c '%a %h' /root/f
stat -c '%u:%g' /root/d; stat -c %s /root/sparse; du -k /root/sparse | cut -f1; [ -p /root/pipe ] && echo pipe
sha256sum -c /root/sum; cat /jfs/shared
""",
    )
    lines = out.splitlines()
    assert lines[:6] == ["one", "no motd", "../f", "4711 2", "1234:567", "50000001"]
    assert int(lines[6]) < 1000
    assert lines[7:] == ["pipe", "/root/random: OK", "kept"]
    assert mags.json("status", "kinds")["start_kind"] in ("clone", "cold")


def test_forks_and_throw_away_copies_leave_their_base_alone(mags: Installation) -> None:
    mags.out("run", "-w", "base", "echo 1 > /root/f")
    mags.cli("sync", "base")
    assert mags.out("run", "--base", "base", "cat /root/f; echo lost > /root/f") == "1\n"
    assert mags.out("run", "-w", "fork", "--base", "base", "cat /root/f; echo 2 > /root/f") == "1\n"
    mags.out("run", "-w", "base", "echo 3 > /root/f")
    mags.cli("stop", "base")
    mags.cli("workspace", "delete", "--yes", "base")
    mags.cli("stop", "fork")
    assert mags.out("run", "-w", "fork", "cat /root/f") == "2\n"
    assert "base" not in {one["workspace_id"] for one in mags.json("workspace", "list")["workspaces"]}


def test_many_throw_away_copies_of_one_base_at_once_do_not_meet(mags: Installation) -> None:
    mags.out("run", "-w", "shared", "echo base > /root/f; echo base > /jfs/f")
    mags.cli("stop", "shared")
    # None ends before all have been there together.
    script = (
        "cat /root/f /jfs/f; echo {0} > /root/f; echo {0} > /jfs/f; touch /jfs/own-{0}; echo ready; "
        "until [ -e /root/go ]; do sleep 0.1; done; cat /root/f /jfs/f; ls /jfs | wc -l"
    )
    running = []
    try:
        for number in range(4):
            running.append(mags.popen("run", "--base", "shared", "-n", f"copy-{number}", script.format(number)))
        for one in running:
            assert one.stdout is not None
            assert [one.stdout.readline() for _ in range(3)] == [b"base\n", b"base\n", b"ready\n"]
        scratch = mags.data / "host" / "storage" / "mnt" / "scratch"
        assert len(list(scratch.iterdir())) == 4
        for number in range(4):
            mags.cli("exec", f"copy-{number}", "touch /root/go")
        for number, one in enumerate(running):
            out, _ = one.communicate(timeout=120)
            assert (one.returncode, out) == (0, f"{number}\n{number}\n2\n".encode())
    finally:
        for one in running:
            if one.poll() is None:
                one.kill()
                one.communicate()
    deadline = time.monotonic() + 120
    while list(scratch.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert mags.out("run", "-w", "shared", "cat /root/f /jfs/f; ls /root /jfs") == "base\nbase\n/jfs:\nf\n\n/root:\nf\n"
    mags.cli("stop", "shared")


def test_a_disk_grows_while_its_vm_is_up(mags: Installation) -> None:
    mags.cli("new", "grow", "-p")
    size = "df -m / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"
    before = int(mags.out("exec", "grow", f"echo kept > /root/f; {size}"))
    mags.cli("resize", "grow", "4")
    assert int(mags.out("exec", "grow", size)) > before * 3 // 2
    assert mags.out("exec", "grow", "cat /root/f") == "kept\n"
    assert mags.cli("resize", "grow", "1", check=False).returncode != 0
    mags.cli("stop", "grow")
    # Without a VM it grows at its next start.
    mags.cli("resize", "grow", "6")
    assert mags.json("workspace", "show", "grow")["disk_gb"] == 6
    kept, larger = mags.out("run", "-w", "grow", f"cat /root/f; {size}").split()
    assert kept == "kept" and int(larger) > before * 5 // 2
    mags.cli("stop", "grow")


def test_a_full_disk_is_the_guests_own_trouble_and_can_be_synced(mags: Installation) -> None:
    out = mags.out(
        "run",
        "-w",
        "full",
        "--disk",
        "1",
        "echo first > /root/f; dd if=/dev/zero of=/root/big bs=1M 2>&1 | grep -c space",
    )
    assert out == "1\n"
    mags.cli("sync", "full")
    assert mags.out("run", "-w", "full", "rm /root/big; cat /root/f") == "first\n"


def test_a_synced_workspace_sleeps_and_wakes_with_its_processes(mags: Installation) -> None:
    mags.cli("new", "dozer", "-p")
    mags.cli("exec", "dozer", "echo disk > /root/f; echo jfs > /jfs/f; (echo $$ > /dev/shm/pid; exec sleep 5000) &")
    mags.cli("sleep", "dozer")
    assert mags.json("status", "dozer")["status"] == "sleeping"
    assert mags.out("exec", "dozer", "cat /root/f /jfs/f; pgrep sleep | wc -l") == "disk\njfs\n1\n"
    mags.cli("stop", "dozer")


def test_two_owners_may_have_workspaces_of_one_name(mags: Installation) -> None:
    token = users.another(mags)
    theirs = {**mags.environment, "MAGS_API_URL": mags.url, "MAGS_API_TOKEN": token}

    def other(*words: str) -> str:
        return subprocess.run([MAGS, *words], env=theirs, check=True, capture_output=True, timeout=120).stdout.decode()

    mags.out("run", "-w", "same", "echo mine > /root/f; echo mine > /jfs/f")
    assert (
        other("run", "-w", "same", "ls /root /jfs; echo theirs > /root/f; echo theirs > /jfs/f") == "/jfs:\n\n/root:\n"
    )
    other("stop", "same")
    mags.cli("stop", "same")
    assert mags.out("run", "-w", "same", "cat /root/f /jfs/f") == "mine\nmine\n"
    assert other("run", "-w", "same", "cat /root/f /jfs/f") == "theirs\ntheirs\n"
    other("workspace", "delete", "--yes", "same")
    assert mags.out("run", "-w", "same", "cat /root/f /jfs/f") == "mine\nmine\n"


@pytest.mark.parametrize("name", ["../x", "a b", "-x", "ä", "a" * 64])
def test_odd_names_are_refused(mags: Installation, name: str) -> None:
    done = mags.cli("run", f"--workspace={name}", "true", check=False)
    assert done.returncode == 125 and b"workspace" in done.stderr.lower()
