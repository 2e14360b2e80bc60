"""A test session that was killed leaves nothing to the next one, and none takes anything from one that lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.network.test_pool import devices
from tests.kit import sessions

SESSION = """
import asyncio, subprocess, sys
from pathlib import Path
from mags.host.network import NamespacePool
from tests.kit import sessions

async def main(place):
    pool = await NamespacePool.open(place / "state", runtime=sessions.RUNTIME, target=0, subnet=sys.argv[2])
    await pool.take()
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print(pool.installation, child.pid, flush=True)
    await asyncio.sleep(1000)

sessions.begin(Path(sys.argv[1]))
asyncio.run(main(Path(sys.argv[1])))
"""


class Session:
    """Of its own id, with a network and a process."""

    def __init__(self, place: Path, subnet: str) -> None:
        self.place, self.id = place, os.urandom(8).hex()
        environment = {**os.environ, sessions.VARIABLE: self.id, "PYTHONPATH": os.pathsep.join(sys.path)}
        words = [sys.executable, "-c", SESSION, str(place), subnet]
        self.process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        with self.process.stdout as said:
            installation, child = said.readline().decode().split()
        self.link, self.child = f"mg{installation}-0", int(child)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def has_all(self) -> bool:
        return self.link in devices() and Path(f"/proc/{self.child}").exists() and self.place.exists()

    def has_nothing(self) -> bool:
        gone = self.link not in devices() and not self.place.exists()
        return gone and self.child not in sessions.processes(self.id)


def test_a_killed_session_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    living = Session(tmp_path / "living", "10.98.1.0/24")
    try:
        killed = Session(tmp_path / "killed", "10.98.2.0/24")
        killed.kill()
        left = killed.link in devices()
        next_one = Session(tmp_path / "next", "10.98.3.0/24")
        try:
            assert left and killed.has_nothing()
            assert living.has_all() and next_one.has_all()
        finally:
            next_one.kill()
    finally:
        living.kill()
        sweep = "from tests.kit import sessions; sessions.begin()()"
        environment = {**os.environ, sessions.VARIABLE: os.urandom(8).hex(), "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", sweep], env=environment, check=True, timeout=120)
    assert living.has_nothing()


INTERRUPTED = """
import subprocess
from tests.kit import sessions

end = sessions.begin(sessions.place(sessions.FOLDERS))
(sessions.new_folder() / "file").write_text("left")
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
end()
print(child.wait(timeout=30), sessions.place(sessions.FOLDERS).exists(), flush=True)
"""


def test_an_interrupted_session_takes_away_what_its_tests_have_left() -> None:
    own = os.urandom(8).hex()
    environment = {**os.environ, sessions.VARIABLE: own, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, timeout=120)
    assert done.stdout == b"-9 False\n", done.stderr.decode()
    assert not (sessions.SESSIONS / own).exists()
