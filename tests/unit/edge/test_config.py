"""Settings: what is refused, what is put in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mags.edge.config import Settings
from mags.kit.addresses import split_address


@pytest.mark.parametrize(
    "wish",
    [
        {"apps_domain": "not a domain"},
        {"apps_domain": ""},
        {"listen_http": "8080"},
        {"listen_http": "127.0.0.1:99999"},
        {"ssh_port_range": "1-2-3"},
        {"ssh_port_range": "3000-2000"},
        {"ssh_port_range": "0-10"},
        {"ssh_port_range": "1-70000"},
        {"tls": "yes"},
        {"run_dir": Path("/x" * 40)},
        {"header_timeout_s": 0},
    ],
    ids=str,
)
def test_what_can_not_be_is_refused(wish: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wish)


def test_a_path_that_is_too_long_for_sockets_says_what_to_set() -> None:
    with pytest.raises(ValidationError, match="MAGS_EDGE_RUN_DIR"):
        Settings(data_dir=Path("/var/lib/" + "long/" * 20))


def test_values_are_put_in_their_usual_form() -> None:
    settings = Settings(apps_domain="Apps.Example.COM.", ssh_port_range="3000-3002")

    assert settings.apps_domain == "apps.example.com"
    assert list(settings.own_ports) == [3000, 3001, 3002]
    assert list(Settings().own_ports) == []
    assert settings.sockets == settings.data_dir / "run"


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), (":80", ("0.0.0.0", 80)), ("[::1]:80", ("::1", 80))],
)
def test_addresses_are_split(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


def test_the_password_of_nats_is_not_printed() -> None:
    settings = Settings.model_validate({"nats_url": "nats://edge:secret@127.0.0.1:4222"})
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_described(name: str) -> None:
    assert Settings.model_fields[name].description
