from __future__ import annotations

from pathlib import Path

import pytest

from mags.host.storage.metadata import address, database_file


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://host", ("host", 6379)),
        ("rediss://user@host:7000/1?insecure-skip-verify=true", ("host", 7000)),
        ("redis://[::1]:7000/1", ("::1", 7000)),
        ("redis://[::1]/1", ("::1", 6379)),
        ("redis://one,two,three:6379/1", None),
        ("postgres://user@db:5433/meta?sslmode=disable", ("db", 5433)),
        ("postgres:///meta?host=/run/postgresql", None),
        ("mysql://user@(db:3307)/meta", ("db", 3307)),
        ("mysql://user@(db)/meta", ("db", 3306)),
        ("mysql://user@unix(/run/mysql.sock)/meta", None),
        ("sqlite3:///data/meta.db?_journal=WAL", None),
        ("etcd://db:2379/meta", None),
    ],
)
def test_place_of_an_engine(url: str, place: tuple[str, int] | None) -> None:
    assert address(url) == place


def test_file_of_a_database() -> None:
    assert database_file("sqlite3:///data/meta.db?_journal=WAL&_timeout=5000") == Path("/data/meta.db")
    assert database_file("redis://host") is None
