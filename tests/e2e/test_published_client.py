"""The published client (magpie-mags on PyPI), unchanged, against our server.

It has our import name, so it runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

PUBLISHED = Path(sys.executable).parents[1] / "published"


def run(mags: Installation, program: str) -> str:
    environment = {
        **mags.environment,
        "PYTHONPATH": str(PUBLISHED),
        "MAGS_API_URL": mags.url,
        "MAGS_API_TOKEN": mags.token,
    }
    head = "import mags; assert 'published' in mags.__file__, mags.__file__\nfrom mags import Mags\nm = Mags()\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", head + program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_it_runs_scripts_and_reads_their_logs(mags: Installation) -> None:
    out = run(
        mags,
        """
result = m.run_and_wait('echo Hello World; exit 3')
print(result['status'], result['exit_code'])
print([line['message'] for line in result['logs']])
""",
    )
    assert out.splitlines()[0].endswith("3") and "Hello World" in out


def test_it_keeps_a_sandbox_and_execs_in_it(mags: Installation) -> None:
    out = run(
        mags,
        """
m.new('published-box')
print(m.exec('published-box', 'echo $((6*7))'))
print(m.find_job('published-box')['status'])
print(m.list_jobs()['total'] >= 1, m.usage()['total_jobs'] >= 1)
print(m.url('published-box', port=8080))
m.stop('published-box')
""",
    )
    assert "42" in out and "running" in out and "True True" in out and "'subdomain': " in out


SERVE = r"""
printf '#!/bin/sh\nread line\nprintf "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\npublished"' > /root/answer
chmod +x /root/answer
nc -lk -p 8080 -e /root/answer >/dev/null 2>&1 &
"""


def test_it_opens_a_sandbox_to_the_web_and_to_ssh(mags: Installation, tmp_path: Path) -> None:
    out = run(
        mags,
        f"""
import json
job = m.new('open-box')['request_id']
m.exec('open-box', {SERVE!r})
m.enable_access(job)
made = m.url_alias_create('published-shop', 'open-box')
listed = m.url_alias_list()
print(json.dumps([made, listed, m.enable_access(job, port=22)]))
""",
    )
    made, listed, access = json.loads(out.splitlines()[-1])
    assert made["subdomain"] == "published-shop" and made["id"]
    (alias,) = (alias for alias in listed["aliases"] if alias["subdomain"] == "published-shop")
    assert (alias["url"], alias["workspace_id"], listed["total"]) == (made["url"], "open-box", len(listed["aliases"]))
    assert curl(alias["url"]) == "published"

    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(access["ssh_private_key"])
    flags = ["-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"]
    flags += ["-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-p", str(access["ssh_port"])]
    argv = ["ssh", *flags, f"{access['ssh_user']}@{access['ssh_host']}", "echo by $(hostname); exit 3"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (3, "by mags-vm\n"), done.stderr

    run(
        mags,
        """
m.url_alias_delete('published-shop')
assert 'published-shop' not in [alias['subdomain'] for alias in m.url_alias_list()['aliases']]
m.stop('open-box')
""",
    )
    assert "No such address" in curl(alias["url"])


def curl(url: str) -> str:
    argv = ["curl", "-sS", "--noproxy", "*", "--max-time", "60", url]
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False).stdout


def test_it_changes_how_a_job_sleeps_and_starts(mags: Installation) -> None:
    run(
        mags,
        """
job = m.new('changed-box')['request_id']
m.update_job(job, startup_command='echo up >> /root/starts', no_sleep=True)
""",
    )
    changed = mags.json("status", "changed-box")
    assert (changed["startup_command"], changed["no_sleep"]) == ("echo up >> /root/starts", True)
    assert mags.cli("sleep", "changed-box", check=False).returncode != 0
    run(mags, f"m.update_job({changed['request_id']!r}, no_sleep=False)")
    again = mags.json("status", "changed-box")
    assert (again["startup_command"], again["no_sleep"]) == ("echo up >> /root/starts", False)
    mags.cli("sleep", "changed-box")
    mags.cli("stop", "changed-box")


def test_it_keeps_the_files_of_a_workspace_and_gives_them_more_room(mags: Installation) -> None:
    """A VM that runs, one that sleeps, and none are resized; then it all goes."""
    run(
        mags,
        """
job = m.new('grown', persistent=True, timeout=120)['request_id']
m.exec('grown', 'echo one > /root/f')
m.sync(job)
assert 'grown' in [one['workspace_id'] for one in m.list_workspaces()['workspaces']], m.list_workspaces()
""",
    )
    assert mags.json("workspace", "show", "grown")["last_synced_at"]
    look = """
def look():
    print(m.exec('grown', 'cat /root/f; df -k /root | tail -n 1')['output'])
"""
    seen = [run(mags, f"{look}\nm.resize('grown', 3, timeout=120)\nlook()\nm.exec('grown', 'echo two >> /root/f')")]
    mags.cli("sleep", "grown")
    seen.append(run(mags, f"{look}\nm.resize('grown', 4, timeout=120)\nlook()\nm.stop('grown')"))
    seen.append(run(mags, f"{look}\nm.resize('grown', 5, timeout=120)\nlook()"))
    for size_gb, files, text in zip((3, 4, 5), (["one"], ["one", "two"], ["one", "two"]), seen, strict=True):
        *found, _, size_kb, _, _, _, _ = text.split()
        assert found == files
        assert 0.9 * (size_gb << 20) < int(size_kb) <= size_gb << 20
    run(
        mags,
        """
from mags.client import MagsError
try:
    m.delete_workspace('grown')
    raise AssertionError('it is in use')
except MagsError as error:
    assert error.status_code == 409, error
m.stop('grown')
m.delete_workspace('grown')
assert 'grown' not in [one['workspace_id'] for one in m.list_workspaces()['workspaces']]
""",
    )
