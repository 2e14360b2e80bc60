from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mags.sdk import settings
from mags.sdk.errors import NotConfigured


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dot" / "config.json"


def test_arguments_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    settings.write_config(file, {"api_url": "http://file:1", "api_token": "file"})
    environment = {"MAGS_CONFIG": str(file)}
    assert settings.find(environment=environment) == ("http://file:1", "file")
    environment |= {"MAGS_API_URL": "http://env:2/", "MAGS_TOKEN": "old"}
    assert settings.find(environment=environment) == ("http://env:2", "old")
    environment |= {"MAGS_API_TOKEN": "new"}
    assert settings.find(environment=environment) == ("http://env:2", "new")
    assert settings.find("argument", "https://argument", environment=environment) == ("https://argument", "argument")


def test_without_a_file_the_server_of_this_machine_is_meant(file: Path) -> None:
    found = settings.find("t", environment={"MAGS_CONFIG": str(file)})
    assert found.api_url == settings.DEFAULT_URL


def test_no_token_says_what_to_do(file: Path) -> None:
    with pytest.raises(NotConfigured, match=r"mags up.*mags login.*MAGS_API_TOKEN"):
        settings.find(environment={"MAGS_CONFIG": str(file)})


@pytest.mark.parametrize("text", ["{", "[]", "\x80"])
def test_a_broken_file_says_so(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(NotConfigured, match=r"config\.json"):
        settings.find(environment={"MAGS_CONFIG": str(file)})


def test_a_broken_file_does_not_matter_when_it_is_not_needed(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("{")
    environment = {"MAGS_CONFIG": str(file), "MAGS_API_URL": "http://x", "MAGS_API_TOKEN": "t"}
    assert settings.find(environment=environment) == ("http://x", "t")


@pytest.mark.parametrize("url", ["", "example.org", "ftp://x", "http://", "http://x:y", "http://x:0", "http://x:99999"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(NotConfigured, match="address"):
        settings.check_url(url)


@pytest.mark.parametrize("token", ["a\r\nX: y", "ü", "a\0b"])
def test_a_token_that_would_break_the_header_is_refused(token: str) -> None:
    with pytest.raises(NotConfigured, match="token"):
        settings.find(token, "http://x")


def test_the_file_is_its_owners_only(file: Path) -> None:
    settings.write_config(file, {"api_token": "secret"})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]
