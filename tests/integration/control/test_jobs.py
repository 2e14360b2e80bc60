"""A job's way, from POST to its recorded end."""

from __future__ import annotations

from tests.integration.control.conftest import Installation


async def test_a_script_runs_and_its_end_is_recorded(mags: Installation) -> None:
    await mags.host()
    body = await mags.run("echo out; echo err >&2; exit 3", name="first")
    assert (body["status"], body["exit_code"], body["error"]) == ("error", 3, None)
    assert body["name"] == "first" and body["start_kind"] == "pool" and body["host_id"] == "h1"
    assert body["started_at"] <= body["completed_at"]
    logs = (await mags.api.get(f"/mags-jobs/{body['request_id']}/logs")).json()["logs"]
    assert {(entry["stream"], entry["message"], entry["level"]) for entry in logs} == {
        ("stdout", "out", "info"),
        ("stderr", "err", "error"),
    }
