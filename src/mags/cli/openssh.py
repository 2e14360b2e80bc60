"""The system's `ssh`, with a key and known hosts of ours: ~/.mags/keys/REQUEST_ID and ~/.mags/known_hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mags.sdk import settings
from mags.sdk.calls import jobs
from mags.sdk.errors import TransferFailed

if TYPE_CHECKING:
    from mags.cli.command import Session


HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]*")
"""Names and addresses. What begins with `-` would be an option of `ssh`, which can run commands here."""


class SshAccess(NamedTuple):
    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path


def access(session: Session, request_id: str) -> SshAccess:
    """Ask for access, and keep the key where only we can read it. TransferFailed for an answer that makes no sense."""
    found = session.sender.send(jobs.enable_access(request_id, port=22))
    try:
        host, port, user = str(found["ssh_host"] or ""), int(found["ssh_port"]), found["ssh_user"]
        private, public = found["ssh_private_key"], found["ssh_host_key"]
    except (KeyError, ValueError) as error:
        raise TransferFailed(f"The server's answer lacks {error}. Is it a Mags server of this version?") from error
    if not HOST.fullmatch(host) or not 0 < port < 65536:
        raise TransferFailed(f"The server names an SSH gateway that can't be: {host!r}, port {port}.")
    home = settings.config_file().parent
    keys = home / "keys"
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = keys / "".join(c if c.isalnum() or c in "-_" else "_" for c in request_id)
    write_private(key, private.rstrip("\n") + "\n")
    known_hosts = home / "known_hosts"
    _know(known_hosts, _pattern(host, port), public)
    return SshAccess(host, port, user, key, known_hosts)


def command_line(access: SshAccess, options: list[str], command: list[str]) -> list[str]:
    """`ssh` asks nothing, offers no other key, and trusts nothing but the key that the server told."""
    given = {
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": f'"{access.known_hosts}"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "ForwardAgent": "no",
        "ServerAliveInterval": "20",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
    }
    words = ["ssh", "-F", "none", "-i", str(access.key), "-p", str(access.port), "-l", access.user]
    for name, value in given.items():
        words += ["-o", f"{name}={value}"]
    return [*words, *options, access.host, *(["--", *command] if command else [])]


def connect(access: SshAccess, options: list[str], command: list[str]) -> int:
    """Become `ssh` (where the system can); else its exit status."""
    words = command_line(access, options, command)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execvp(words[0], words)
    return subprocess.run(words, check=False).returncode


def write_private(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    beside.replace(path)


def _pattern(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"


def _know(path: Path, pattern: str, public: str) -> None:
    """One line for each host; a new key of a server (told over the API) replaces the old one."""
    line = f"{pattern} {' '.join(public.split()[:2])}"
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    if line not in lines:
        kept = [old for old in lines if old.split(" ", 1)[0] != pattern]
        write_private(path, "\n".join([*kept, line]) + "\n")
