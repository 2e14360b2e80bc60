"""A workspace of very many files: written, synced, restored, also on another host, exported and imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit import fleet as fleets
from tests.kit.fleet import Fleet
from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

MAKE = """
set -e
mkdir -p /root/many && cd /root/many
i=0
while [ $i -lt {folders} ]; do
  mkdir $i
  (cd $i && seq $((i * 1000 + 1)) $((i * 1000 + 1000)) | split -l 1 -a 3 - f && chmod $((600 + i % 8 * 10)) f*)
  i=$((i + 1))
done
"""
LOOK = """
cd /root/many && find . -type f | wc -l && find . -type f | sort | xargs cat | sort -n | md5sum
find . | sort | xargs stat -c '%n %a %u %s' | md5sum
"""


@pytest.mark.parametrize("folders", [3, pytest.param(100, marks=pytest.mark.soak)], ids=["3000 files", "100000 files"])
def test_many_files_are_all_there_everywhere(mags: Installation, tmp_path: Path, folders: int) -> None:
    name, copy, file = f"many-{folders}", f"copy-{folders}", tmp_path / "many.tar"
    mags.cli("run", "-w", name, "--disk", "2", MAKE.format(folders=folders), timeout=800)
    said = mags.cli("run", "-w", name, LOOK, timeout=800).stdout.decode()
    assert said.split()[0] == str(folders * 1000)
    mags.cli("sync", name, timeout=800)
    mags.cli("stop", name)
    assert mags.cli("run", "-w", name, LOOK, timeout=800).stdout.decode() == said
    mags.cli("workspace", "export", name, str(file), timeout=800)
    mags.cli("workspace", "import", copy, str(file), timeout=800)
    mags.cli("stop", name)
    mags.cli("workspace", "delete", "--yes", name)
    assert mags.cli("run", "-w", copy, LOOK, timeout=800).stdout.decode() == said
    mags.cli("stop", copy)
    mags.cli("workspace", "delete", "--yes", copy)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_files_are_restored_on_another_host(base_image: None, tmp_path: Path) -> None:
    with fleets.metadata() as meta, fleets.seaweedfs(tmp_path) as store, Fleet(meta, store) as fleet:
        mags, first = fleet.mags, fleet.host("a")
        mags.cli("run", "-w", "many", "--disk", "2", MAKE.format(folders=100), timeout=800)
        said = mags.cli("run", "-w", "many", LOOK, timeout=800).stdout.decode()
        assert said.split()[0] == "100000"
        mags.cli("sync", "many", timeout=800)
        first.perish()
        fleet.host("b")
        assert mags.cli("run", "-w", "many", LOOK, timeout=800).stdout.decode() == said
        assert mags.json("status", "many")["host_id"] == "b"
        mags.cli("stop", "many")
