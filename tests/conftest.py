"""What every test session owes: nothing of ours left on the machine, and in CI real VMs that really ran.

Every process that a test starts inherits `MAGS_TEST_SESSION`; at the end none that carries it may live. Mounts, links,
tables, control groups and pinned namespaces are looked for by the session's directories and the ids of the networks
that lie in them, so that two sessions side by side don't answer for each other. In CI the machine is otherwise quiet:
there everything that was not there at the start is a complaint.

With workers (pytest-xdist, `-n`) they and their controller are one session: it begins before the first worker and looks
for what is left after the last. A worker has its temporary files in a directory within the session's.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from mags.host.storage.seaweedfs import SeaweedFS
from tests.guest import fuzzing
from tests.kit import objectstore, remnants, sessions

sessions.current()
IN_CI = os.environ.get("CI") == "true"
# Whoever started us in the background may have had these ignored, and children inherit that. We end orderly by any.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
os.environ.pop("MAGS_API_URL", None)
os.environ.pop("MAGS_API_TOKEN", None)
os.environ.pop("MAGS_TOKEN", None)

VM = ("in a real VM", True)
_vm_tests_passed = 0


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """A short place for temporary files; and whatever dead sessions have left goes."""
    if _is_worker(config):  # as short as can be: unix sockets lie in it
        whole = Path(config.option.basetemp)
        config.option.basetemp = str(whole.with_name(whole.name.removeprefix("popen-gw")))
        return
    if not config.option.basetemp:
        place = sessions.place("mt")
        config.option.basetemp = str(place)
        config.add_cleanup(lambda: shutil.rmtree(place, ignore_errors=True))
    if not config.option.collectonly:
        config.add_cleanup(sessions.begin(Path(config.option.basetemp), sessions.place(sessions.FOLDERS)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and item.get_closest_marker("vm") is not None:
        report.user_properties.append(VM)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """(Workers' reports come to the controller too, as JSON.)"""
    global _vm_tests_passed
    if report.when == "call" and report.passed and VM in [tuple(one) for one in report.user_properties]:
        _vm_tests_passed += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why tests were run again that then passed: a failure that is rare is one that nobody can look at later."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"first try of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def seaweed() -> AsyncIterator[SeaweedFS]:
    """One S3 service (SeaweedFS) for all tests that only use one: each has a bucket of its own (kit/objectstore)."""
    with sessions.folder() as directory:
        server = SeaweedFS(directory)
        await server.start()
        try:
            yield server
        finally:
            await objectstore.cut(server)


def _processes() -> dict[int, str]:
    """Living processes of this session: pid -> command line."""
    found = {}
    for pid in sessions.others():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found[pid] = command[:200]
    return found


_before = remnants.of_anybody() if IN_CI else set[str]()


def _left(places: Sequence[Path]) -> list[str]:
    """What of ours is still there. Installations take their files away themselves; pytest's own go after this."""
    found = [f"process {pid}: {command}" for pid, command in _processes().items()]
    found += remnants.of_places(places)
    found += [f"file {path}" for path in places[1].glob("*")]
    return found + (sorted(remnants.of_anybody() - _before) if IN_CI else [])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _is_worker(session.config):
        return
    fuzzing.end(fuzzing.place(session.config))
    deadline = time.monotonic() + 15
    places = [Path(session.config.option.basetemp), sessions.place(sessions.FOLDERS)]
    while (complaints := _left(places)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if complaints:
        print("\nLeft behind by the tests:\n  " + "\n  ".join(complaints))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if os.environ.get("MAGS_REQUIRE_VM") == "1" and _vm_tests_passed == 0 and not session.config.option.collectonly:
        print("\nNo VM test passed in this session: a CI without real VMs proves nothing.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
