from __future__ import annotations

import json
from pathlib import Path

from mags.host.checks.unsaved import unsaved


def test_all_is_saved(tmp_path: Path) -> None:
    assert unsaved(tmp_path) == []
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_text(json.dumps({"handle": "a", "vm_id": "v", "unsaved": False}))
    (tmp_path / "records" / "b.json").write_text("{")
    assert unsaved(tmp_path) == []


def test_each_vm_is_named_with_where_its_files_are(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    record = {"handle": "a", "vm_id": "v1", "unsaved": True, "attachment": {"workspace_id": "w1"}}
    (tmp_path / "records" / "a.json").write_text(json.dumps(record))
    (tmp_path / "unsaved" / "w2.b").mkdir(parents=True)
    waiting, late = unsaved(tmp_path)
    assert "VM v1 to workspace w1" in waiting.detail and str(tmp_path / "vms" / "a") in waiting.detail
    assert "workspace w2" in late.detail and str(tmp_path / "unsaved" / "w2.b") in late.detail
    assert waiting.ok is late.ok is None
