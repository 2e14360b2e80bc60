"""The way of `mags run`, as a user goes it."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


def test_hello_world_is_all_there_is_on_stdout(mags: Installation) -> None:
    assert mags.cli("run", "echo Hello World").stdout == b"Hello World\n"


def test_the_exit_status_is_the_scripts_own_and_stderr_stays_apart(mags: Installation) -> None:
    done = mags.cli("run", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert b"err\n" in done.stderr


def test_the_script_runs_in_a_computer_of_its_own(mags: Installation) -> None:
    out = mags.out("run", "hostname; pwd; id -u; uname -s; cat /proc/1/comm")
    assert out.splitlines()[:4] == ["mags-vm", "/root", "0", "Linux"]


def test_a_script_may_come_from_a_file_or_from_stdin(mags: Installation) -> None:
    script = mags.folder / "hello.sh"
    script.write_text("echo from a file\n")
    assert mags.out("run", f"@{script}") == "from a file\n"
    assert mags.out("run", "-", input=b"echo from stdin\n") == "from stdin\n"


def test_a_script_of_one_mebibyte_runs_and_a_larger_one_is_refused(mags: Installation) -> None:
    script = mags.folder / "large.sh"
    script.write_text("#" * ((1 << 20) - 10) + "\necho end\n"[:10])
    assert mags.out("run", f"@{script}") == "end\n"
    script.write_text("#" * (1 << 20) + "\necho end\n")
    assert mags.cli("run", f"@{script}", check=False).returncode == 125


def test_environment_and_timeout(mags: Installation) -> None:
    assert mags.out("run", "--env", "GREETING=hi there", 'echo "$GREETING"') == "hi there\n"
    done = mags.cli("run", "--timeout", "1", "echo begun; sleep 100; echo no", check=False)
    assert (done.returncode, done.stdout) == (124, b"begun\n")


def test_of_an_ephemeral_run_nothing_stays(mags: Installation) -> None:
    workspaces = mags.json("workspace", "list")
    run = mags.popen("run", "-e", "-n", "ephemeral", "echo up > /root/f; cat /root/f; sleep 5")
    assert run.stdout is not None and run.stdout.readline() == b"up\n"
    vm_id = mags.json("status", "ephemeral")["vm_id"]
    record, place = _kept(mags, vm_id)
    run.communicate(timeout=60)
    job = mags.json("status", "ephemeral")
    assert (run.returncode, job["status"], job["workspace_id"]) == (0, "completed", None)
    deadline = time.monotonic() + 60
    while record.exists() or place.exists():  # the VM ends just after its script
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert mags.json("workspace", "list") == workspaces
    assert mags.cli("exec", "ephemeral", "true", check=False).returncode == 125


def _kept(mags: Installation, vm_id: str) -> tuple[Path, Path]:
    """The record of a VM on its host, and its directory; one that is parked or asleep has them too."""
    host = mags.data / "host"
    (record,) = (file for file in (host / "records").glob("*.json") if vm_id in _text(file))
    place = host / "vms" / record.stem
    assert place.is_dir()
    return record, place


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def test_a_kind_of_vm_that_was_warmed_is_cloned_at_once(mags: Installation) -> None:
    assert b"at once" in mags.cli("image", "warm", "alpine", "--memory", "208", "--data-dir", str(mags.data)).stderr
    mags.cli("run", "-n", "warmed", "--memory", "208", "head -1 /proc/meminfo")
    assert mags.json("status", "warmed")["start_kind"] == "clone"


def test_each_run_gets_a_clean_computer(mags: Installation) -> None:
    mags.out("run", "echo secret > /root/left; echo x > /tmp/left")
    assert mags.out("run", "ls /root/left /tmp/left 2>/dev/null; echo end") == "end\n"


def test_output_is_the_scripts_bytes(mags: Installation) -> None:
    done = mags.cli("run", r"printf '\377\000x\n'; printf 'no newline at the end'")
    assert done.stdout == b"\xff\x00x\nno newline at the end"


def test_logs_of_bytes_that_are_no_text_can_be_read(mags: Installation) -> None:
    request_id = mags.out("run", "-d", r"printf 'caf\303\251 \377\376 \000 end\n'; printf '\351' >&2").strip()
    mags.out("logs", "-f", request_id)
    lines = {entry["stream"]: entry["message"] for entry in mags.json("logs", request_id)["logs"]}
    assert lines["stdout"].startswith("café ") and lines["stdout"].endswith(" end") and "\ufffd" in lines["stdout"]
    assert lines["stderr"] == "\ufffd"


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_gigabyte_without_a_newline_arrives_whole_and_nobody_grows(mags: Installation) -> None:
    size = 1 << 30
    before = _memory(mags)
    run = mags.popen("run", f"head -c {size} /dev/zero | tr '\\0' x")
    assert run.stdout is not None
    received, most = 0, dict(before)
    while chunk := run.stdout.read(1 << 20):
        assert chunk.count(b"x") == len(chunk)
        received += len(chunk)
        if received % (64 << 20) < len(chunk):
            most = {name: max(most[name], kb) for name, kb in _memory(mags).items()}
    run.communicate()
    assert received == size and run.returncode == 0
    grown = {name: kb - before[name] for name, kb in most.items()}
    # NATS keeps what it has just written in memory, to a bound of its own.
    assert grown.pop("nats-server") < 256 << 10 and {name: kb for name, kb in grown.items() if kb > 128 << 10} == {}


def _memory(mags: Installation) -> dict[str, int]:
    """Resident KiB of our programs."""
    found = {}
    for name in ("control", "host", "edge", "nats-server"):
        (pid,) = mags.programs()[name]
        status = Path(f"/proc/{pid}/status").read_text()
        found[name] = int(status.partition("VmRSS:")[2].split()[0])
    return found


def test_ten_megabytes_arrive_whole(mags: Installation) -> None:
    done = mags.cli("run", "head -c 10000000 /dev/zero | tr '\\0' x")
    assert len(done.stdout) == 10_000_000 and set(done.stdout) == {ord("x")}


def test_ctrl_c_stops_the_job_on_the_server(mags: Installation) -> None:
    run = mags.popen("run", "-n", "interrupted", "echo begun; sleep 1000")
    assert run.stdout is not None and run.stdout.readline() == b"begun\n"
    run.send_signal(signal.SIGINT)
    run.wait(timeout=60)
    run.communicate()
    deadline = time.monotonic() + 60
    while mags.json("status", "interrupted")["status"] not in ("completed", "error"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_job_in_the_background_is_found_by_its_name(mags: Installation) -> None:
    request_id = mags.out("run", "-d", "-n", "behind", "echo line 1; echo line 2 >&2").strip()
    assert "line 1" in mags.out("logs", "-f", "behind")
    assert "line 1" in mags.out("logs", "-f", "behind")
    deadline = time.monotonic() + 60
    while (status := mags.json("status", "behind"))["status"] != "completed":
        assert time.monotonic() < deadline and status["status"] in ("pending", "running")
        time.sleep(0.1)
    assert status["request_id"] == request_id and status["exit_code"] == 0
    assert status["start_kind"] in ("pool", "clone", "cold")
    assert any(job["request_id"] == request_id for job in mags.json("list")["jobs"])


def test_a_new_sandbox_takes_commands_and_files_until_it_is_stopped(mags: Installation) -> None:
    mags.cli("new", "box")
    assert mags.out("exec", "box", "echo kept > /root/file; echo $((6*7))") == "42\n"
    assert mags.out("exec", "box", "cat /root/file") == "kept\n"
    assert mags.cli("exec", "box", "exit 9", check=False).returncode == 9
    local = mags.folder / "up.bin"
    local.write_bytes(bytes(range(256)) * 4000)
    mags.cli("cp", str(local), "box:/root/in/up.bin")
    back = mags.folder / "down.bin"
    mags.cli("cp", "box:/root/in/up.bin", str(back))
    assert back.read_bytes() == local.read_bytes()
    mags.cli("stop", "box")
    assert mags.cli("exec", "box", "true", check=False).returncode == 125


def test_runs_with_the_same_local_workspace_meet_in_one_vm(mags: Installation) -> None:
    mags.out("run", "-w", "local", "--no-sync", "echo x > /root/f")
    assert mags.out("run", "-w", "local", "--no-sync", "cat /root/f") == "x\n"
    assert mags.json("status", "local")["start_kind"] in ("parked", "warm")


def test_a_guest_reaches_neither_its_host_nor_private_addresses(mags: Installation) -> None:
    port = mags.api.rpartition(":")[2]
    script = "\n".join(
        f"timeout 5 wget -q -O - http://{address}:{port}/api/v1/health && echo REACHED {address}"
        for address in ("127.0.0.1", "172.16.0.1", "169.254.169.254", "10.0.0.1", "192.168.0.1")
    )
    assert "REACHED" not in mags.out("run", script + "\necho done")


def test_pool_doctor_and_version_answer(mags: Installation) -> None:
    pool = mags.json("pool")
    assert pool["min_pool_size"] == 2 and pool["hosts"]
    assert b"QEMU" in mags.cli("doctor", check=False).stdout
    assert mags.out("--version").strip()


def test_the_server_that_is_not_there_is_said_so(mags: Installation) -> None:
    import subprocess

    from tests.kit.installation import MAGS, free_port

    environment = {**mags.environment, "MAGS_API_URL": f"http://127.0.0.1:{free_port()}", "MAGS_API_TOKEN": "x"}
    done = subprocess.run([MAGS, "run", "true"], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 125 and b"mags up" in done.stderr and done.stdout == b""


def test_a_second_mags_up_is_refused(mags: Installation) -> None:
    done = mags.cli("up", "-d", check=False)
    assert done.returncode != 0 and b"already" in done.stderr.lower()


def test_json_is_json(mags: Installation) -> None:
    assert json.loads(mags.out("list", "--json"))["total"] >= 1
