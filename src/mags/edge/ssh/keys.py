"""The gateway's own key, and which algorithms it speaks."""

from __future__ import annotations

from pathlib import Path

import asyncssh
from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs

from mags.kit.files import write_atomic

KEY_NAME = "ssh_host_ed25519_key"

# Nothing with SHA-1, CBC, RC4, DSA or groups below 3072 bits (RFC 9142; the defaults of OpenSSH 9).
KEX = [
    b"mlkem768x25519-sha256",
    b"sntrup761x25519-sha512@openssh.com",
    b"curve25519-sha256",
    b"curve25519-sha256@libssh.org",
    b"ecdh-sha2-nistp256",
    b"ecdh-sha2-nistp384",
    b"ecdh-sha2-nistp521",
    b"diffie-hellman-group16-sha512",
    b"diffie-hellman-group18-sha512",
]
CIPHERS = [
    b"chacha20-poly1305@openssh.com",
    b"aes128-gcm@openssh.com",
    b"aes256-gcm@openssh.com",
    b"aes128-ctr",
    b"aes192-ctr",
    b"aes256-ctr",
]
MACS = [
    b"hmac-sha2-256-etm@openssh.com",
    b"hmac-sha2-512-etm@openssh.com",
    b"hmac-sha2-256",
    b"hmac-sha2-512",
]
SIGNATURES = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-256",
    "rsa-sha2-512",
]
SMALLEST_RSA = 2048
"""Bits of a client's RSA key at least."""


def algorithms() -> dict[str, list[str]]:
    """Keyword arguments for asyncssh: of the lists above what this installation can do."""
    return {
        "kex_algs": _known(KEX, get_kex_algs()),
        "encryption_algs": _known(CIPHERS, get_encryption_algs()),
        "mac_algs": _known(MACS, get_mac_algs()),
        "signature_algs": SIGNATURES,
    }


def _known(wanted: list[bytes], known: list[bytes]) -> list[str]:
    return [name.decode() for name in wanted if name in known]


def host_key(folder: Path) -> asyncssh.SSHKey:
    """The key in `folder`, made at the first start and the same ever after. ValueError when the file is damaged: a
    new one would look like an attack to every client."""
    path = folder / KEY_NAME
    if path.exists():
        try:
            return asyncssh.read_private_key(path)
        except (asyncssh.KeyImportError, OSError) as error:
            raise ValueError(f"{path} is no SSH key ({error}): restore it, or remove it to have a new one") from error
    key = asyncssh.generate_private_key("ssh-ed25519", comment="mags")
    write_atomic(path, key.export_private_key("openssh"), mode=0o600, durable=True)
    return key


def line(key: asyncssh.SSHKey) -> str:
    """A public key as one line without a comment: `ssh-ed25519 AAAA...`."""
    return " ".join(key.export_public_key("openssh").decode().split()[:2])
