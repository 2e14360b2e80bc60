from __future__ import annotations

from pathlib import Path

from mags.host.machines.record import JobRecord, Record, Records
from mags.protocol.messages import Started, VmSpec
from mags.protocol.states import VmState

RECORD = Record(
    handle="abc",
    spec=VmSpec(memory_mb=256),
    uid=7,
    namespace=3,
    state=VmState.RUNNING,
    vm_id="vm1",
    keep="park",
    environment={"A": "ä"},
    jobs={"j": JobRecord(job_id="j", process_id=2, started=Started(start_kind="pool", boot_ms=1, started_at_ms=2))},
)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    Records(tmp_path / "r").write(RECORD)
    assert list(Records(tmp_path / "r").read_all()) == [RECORD]


def test_a_removed_record_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(RECORD)
    records.remove("abc")
    records.remove("abc")
    assert list(records.read_all()) == []


def test_a_record_that_can_not_be_read_is_dropped(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(RECORD)
    (tmp_path / "bad.json").write_text('{"handle": 5}')
    (tmp_path / "worse.json").write_bytes(b"\xff\xfe{")
    assert [record.handle for record in records.read_all()] == ["abc"]
    assert [path.name for path in tmp_path.iterdir()] == ["abc.json"]
