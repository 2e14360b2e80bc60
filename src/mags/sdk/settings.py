"""Where the server is and with which token: arguments, then the environment, then ~/.mags/config.json.

{"api_url": "http://127.0.0.1:4280", "api_token": "..."}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from mags.sdk.errors import NotConfigured

DEFAULT_URL = "http://127.0.0.1:4280"
"""Where `mags up` listens unless told otherwise."""


class Settings(NamedTuple):
    api_url: str
    api_token: str


def config_file(environment: Mapping[str, str] = os.environ) -> Path:
    """MAGS_CONFIG, else ~/.mags/config.json."""
    given = environment.get("MAGS_CONFIG")
    return Path(given) if given else Path("~/.mags/config.json").expanduser()


def read_config(path: Path) -> dict[str, str]:
    """What the file holds; nothing if there is none. NotConfigured when it can't be read."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NotConfigured(f"{path} can't be read ({error}). Mend or remove it, then run `mags login`.") from error
    if not isinstance(found, dict):
        raise NotConfigured(f"{path} does not hold a JSON object. Remove it, then run `mags login`.")
    return {str(key): value for key, value in found.items() if isinstance(value, str)}


def write_config(path: Path, config: Mapping[str, str]) -> None:
    """Replace the file as a whole; only its owner may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(dict(config), indent=2) + "\n")
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def find(
    api_token: str | None = None,
    api_url: str | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """The server and token to use; NotConfigured when there is no token or the address is no http(s) URL."""
    config: Mapping[str, str] = {}
    url = api_url or environment.get("MAGS_API_URL")
    token = api_token or environment.get("MAGS_API_TOKEN") or environment.get("MAGS_TOKEN")
    if not url or not token:
        config = read_config(config_file(environment))
    url = check_url(url or config.get("api_url") or DEFAULT_URL)
    token = token or config.get("api_token")
    if not token:
        raise NotConfigured(
            "No API token. Start a server of your own with `mags up`, log in to one with `mags login`, "
            "or set MAGS_API_TOKEN (and MAGS_API_URL)."
        )
    if any(character in token for character in "\r\n\0") or not token.isascii():
        raise NotConfigured("The API token holds characters that no token has. Copy it again.")
    return Settings(url, token)


def check_url(url: str) -> str:
    """The address without a trailing slash; NotConfigured unless it is http(s)://HOST[:PORT][/PATH]."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
    if not port_is_fine or parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotConfigured(f"{url!r} is no address of a server. Give one like {DEFAULT_URL}.")
    return url.rstrip("/")


def is_local(api_url: str) -> bool:
    """Whether the server is on this machine, where no proxy leads to it."""
    return urlsplit(api_url).hostname in ("127.0.0.1", "::1", "localhost")
