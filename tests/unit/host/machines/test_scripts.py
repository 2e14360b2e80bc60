from __future__ import annotations

from mags.host.machines import scripts
from mags.protocol.messages import Script


def test_a_script_is_run_as_it_is_with_its_environment_and_time_out() -> None:
    wish = scripts.wish(Script(job_id="j", script="echo ä\r\n", environment={"A": "1"}, timeout_s=3))
    assert wish is not None
    assert wish.script == "echo ä\r\n".encode()
    assert wish.environment == {"A": "1"}
    assert wish.timeout_ms == 3000


def test_an_address_is_fetched_inside_the_vm() -> None:
    wish = scripts.wish(Script(job_id="j", url="http://example.test/s.sh"))
    assert wish is not None
    assert wish.script == scripts.FETCH
    assert wish.argv == ("http://example.test/s.sh",)


def test_without_a_script_nothing_runs() -> None:
    assert scripts.wish(Script(job_id="j")) is None
