"""The local user's ~/.mags/config.json, so that `mags run` needs no set-up after `mags up`."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path

from mags.sdk import settings
from mags.sdk.errors import NotConfigured


def save(api_url: str, token: str, *, environment: dict[str, str]) -> list[str]:
    """Write it for us, and for the user who called sudo. A file that leads to another server stays as it is.

    What happened, in sentences for those files that were left alone.
    """
    notes = []
    for path, owner in _files(environment):
        try:
            found = settings.read_config(path)
        except NotConfigured as error:
            notes.append(str(error))
            continue
        elsewhere = found.get("api_url")
        if elsewhere and found.get("api_token") and not _is_local(elsewhere):
            notes.append(
                f"{path} leads to {elsewhere} and stays so. For this server: `mags login --api-url {api_url}`."
            )
            continue
        wanted = {**found, "api_url": api_url, "api_token": token}
        if found != wanted:
            settings.write_config(path, wanted)
        if owner is not None:
            os.chown(path.parent, owner.pw_uid, owner.pw_gid)
            os.chown(path, owner.pw_uid, owner.pw_gid)
    return notes


def forget(token: str, *, environment: dict[str, str]) -> None:
    """Remove the file of ours, and of the user who called sudo, if it holds this token."""
    for path, _ in _files(environment):
        with suppress(NotConfigured):
            if token and settings.read_config(path).get("api_token") == token:
                path.unlink()


def _files(environment: dict[str, str]) -> list[tuple[Path, pwd.struct_passwd | None]]:
    files: list[tuple[Path, pwd.struct_passwd | None]] = [(settings.config_file(environment), None)]
    caller = environment.get("SUDO_USER")
    if caller and caller != "root" and os.geteuid() == 0 and "MAGS_CONFIG" not in environment:
        try:
            owner = pwd.getpwnam(caller)
        except KeyError:
            return files
        theirs = Path(owner.pw_dir) / ".mags" / "config.json"
        if Path(owner.pw_dir).is_dir() and theirs != files[0][0]:
            files.append((theirs, owner))
    return files


def _is_local(url: str) -> bool:
    return url.startswith(("http://127.", "http://localhost", "http://[::1]"))
