from __future__ import annotations

from pathlib import Path

from tests.unit.cli.conftest import Mags


def test_an_export_is_a_file_when_it_is_whole(mags: Mags, tmp_path: Path) -> None:
    outcome = mags("workspace", "export", "project", str(tmp_path / "p.tar"), answer=b"archive")
    assert outcome.status == 0 and (tmp_path / "p.tar").read_bytes() == b"archive"
    assert mags("workspace", "export", "project", "-", answer=b"archive").out == "archive"


def test_an_export_that_fails_leaves_no_file(mags: Mags, tmp_path: Path) -> None:
    outcome = mags("workspace", "export", "project", str(tmp_path / "p.tar"), answer=(404, {"error": "No workspace."}))
    assert outcome.status == 1 and not [*tmp_path.iterdir()]
    assert mags("workspace", "export", "project", str(tmp_path / "no" / "p.tar"), answer=b"x").status == 1


def test_an_import_streams_the_archive(mags: Mags, tmp_path: Path) -> None:
    (tmp_path / "p.tar").write_bytes(b"archive")
    outcome = mags("workspace", "import", "project", str(tmp_path / "p.tar"), "--disk", "4", answer={})
    assert outcome.seen[0].path == "/mags-workspaces/project/import"
    assert (outcome.seen[0].query, outcome.seen[0].body) == ({"disk_gb": "4"}, b"archive")
    assert mags("workspace", "import", "project", str(tmp_path / "missing"), answer={}).status == 1


def test_a_list_says_what_is_on_later_pages(mags: Mags) -> None:
    workspace = {
        "workspace_id": "a", "size_bytes": 1, "disk_gb": 2, "last_used_at": None, "last_synced_at": None,
        "base_workspace_id": None, "job": None,
    }  # fmt: skip
    page = {"workspaces": [workspace], "total": 4, "page": 2, "page_size": 1}
    outcome = mags("workspace", "list", "-n", "1", "--page", "2", answer=page)
    assert outcome.seen[0].query == {"page": "2", "page_size": "1"}
    assert outcome.err == "2 more: --page 3\n"
    assert mags("workspace", "list", answer={**page, "page": 1, "page_size": 10_000, "total": 1}).err == ""
