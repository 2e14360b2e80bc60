"""The system's `ssh`, with a key and known hosts of ours: ~/.mags/keys/REQUEST_ID and ~/.mags/known_hosts."""

from __future__ import annotations

import base64
import os
import re
import stat
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
    """Ask for access, and keep the key where only we can read it, for the next time too: a server keeps a bounded
    number of keys, so a new one each time would cut off whoever came first. TransferFailed for an answer that makes
    no sense."""
    home = settings.config_file().parent
    key = home / "keys" / "".join(c if c.isalnum() or c in "-_" else "_" for c in request_id)
    has = _public_half(key)
    found = session.sender.send(jobs.enable_access(request_id, port=22, public_key=has))
    try:
        host, port, user = str(found["ssh_host"] or ""), int(found["ssh_port"]), found["ssh_user"]
        private, public = found["ssh_private_key"], found["ssh_host_key"]
    except (KeyError, ValueError) as error:
        raise TransferFailed(f"The server's answer lacks {error}. Is it a Mags server of this version?") from error
    if not HOST.fullmatch(host) or not 0 < port < 65536:
        raise TransferFailed(f"The server names an SSH gateway that can't be: {host!r}, port {port}.")
    if private is not None:
        key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(key, private.rstrip("\n") + "\n")
    elif has is None:
        raise TransferFailed("The server's answer lacks a key. Is it a Mags server of this version?")
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


def _public_half(path: Path) -> str | None:
    """`ssh-ed25519 AAAA...` of a private key as OpenSSH writes it (PROTOCOL.key): the magic word, three strings about
    its encryption, the number of keys, and the public one. None when there is none that `ssh` would take."""
    try:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            return None
        blob = base64.b64decode("".join(path.read_text().split("-----")[2].split()), validate=True)
    except (OSError, ValueError, IndexError):
        return None
    rest = blob.removeprefix(b"openssh-key-v1\0")
    for _ in range(3):
        _, rest = _string(rest)
    public, _ = _string(rest[4:])
    name, _ = _string(public)
    return f"{name.decode(errors='replace')} {base64.b64encode(public).decode()}" if name else None


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A string of SSH (RFC 4251, 5), and what is behind it."""
    end = 4 + int.from_bytes(data[:4])
    return data[4:end], data[end:]


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
