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
