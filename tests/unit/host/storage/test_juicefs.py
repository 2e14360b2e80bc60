from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from mags.host.storage.config import StorageSettings
from mags.host.storage.juicefs import Volume, mount_command


def volume(**settings: object) -> Volume:
    return Volume(StorageSettings.model_validate(settings), Path("/data"))


def test_passwords_are_never_arguments() -> None:
    made = volume(
        kind="s3",
        meta_url="postgres://user:p%40ss@db:5432/meta?sslmode=disable",
        endpoint="http://s3",
        secret_key="hush",
    )
    words = " ".join(mount_command(made, Path("/mnt")))
    assert "postgres://user@db:5432/meta?sslmode=disable" in words
    assert "p%40ss" not in words and "p@ss" not in words and "hush" not in words
    environment = made.environment()
    assert environment["META_PASSWORD"] == "p@ss" and environment["AWS_SECRET_ACCESS_KEY"] == "hush"
    assert "hush" not in repr(made.settings)


def test_metadata_lies_in_the_data_directory_by_default() -> None:
    assert volume().meta == "sqlite3:///data/meta.db?_journal=WAL&_timeout=5000"
    assert volume(meta_url="redis://127.0.0.1:6379/1").meta == "redis://127.0.0.1:6379/1"


def test_nothing_is_confirmed_before_it_is_stored() -> None:
    assert "--writeback" not in mount_command(volume(), Path("/mnt"))


def test_odd_names_are_refused() -> None:
    for name in ("", "A", "a b", "-x", "a/b", "x" * 64):
        with pytest.raises(ValidationError):
            StorageSettings(volume=name)
    assert StorageSettings(secret_key=SecretStr("x")).kind == "local"
