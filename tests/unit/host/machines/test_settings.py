from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mags.host.config import Settings


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGS_HOST_HOST_ID", "west-1")
    monkeypatch.setenv("MAGS_HOST_DATA_DIR", "/data")
    monkeypatch.setenv("MAGS_HOST_NATS_URL", "nats://host:secret@127.0.0.1:4222")
    settings = Settings()
    assert settings.host_id == "west-1"
    assert settings.cache == Path("/data/cache") and settings.state == Path("/data/host")
    assert "secret" not in repr(settings)


def test_vms_whose_files_are_nowhere_else_are_kept_for_a_week_of_sleep() -> None:
    assert Settings().local_retention_s == 7 * 86400


@pytest.mark.parametrize("host_id", ["", "a b", "a.b", "*", "-a"])
def test_a_host_id_is_one_token_of_a_subject(host_id: str) -> None:
    with pytest.raises(ValidationError):
        Settings(host_id=host_id)
