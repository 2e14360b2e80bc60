"""A second, empty installation on the same metadata and blocks sees and runs every workspace."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]

DEADLINE_S = 120.0


def test_an_empty_installation_runs_the_workspaces_of_another(base_image: None, tmp_path: Path) -> None:
    environment = {
        "MAGS_HOST_POOL_TARGET": "0",
        "MAGS_HOST_STORAGE_META_URL": f"sqlite3://{tmp_path / 'meta.db'}?_journal=WAL&_timeout=5000",
        "MAGS_HOST_STORAGE_BLOCKS_DIR": str(tmp_path / "blocks"),
    }
    with Installation(environment=environment) as first:
        first.cli("run", "-w", "moved", "echo disk > /root/f; echo straight > /jfs/f")
        first.cli("stop", "moved")
    with Installation(environment=environment) as second:
        deadline = time.monotonic() + DEADLINE_S
        while not (found := second.json("workspace", "list")["workspaces"]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert [one["workspace_id"] for one in found] == ["moved"]
        assert found[0]["size_bytes"] > 0 and found[0]["last_synced_at"] is not None
        assert second.out("run", "-w", "moved", "cat /root/f /jfs/f; echo more >> /root/f") == "disk\nstraight\n"
        second.cli("stop", "moved")
        assert second.out("run", "-w", "moved", "cat /root/f") == "disk\nmore\n"
