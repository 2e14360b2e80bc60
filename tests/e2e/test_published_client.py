"""The published client (magpie-mags on PyPI), unchanged, against our server.

It has our import name, so it runs in a process of its own.
"""

from __future__ import annotations

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
