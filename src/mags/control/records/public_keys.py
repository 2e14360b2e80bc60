"""SSH public keys as text: reading one that somebody gives, and making a pair (RFC 4253, RFC 8709)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from mags.control import errors

MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class PublicKey:
    line: str
    """Algorithm and key, without options and comment."""
    comment: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.line)


def fingerprint(line: str) -> str:
    """`SHA256:...` as OpenSSH prints it; of `ALGORITHM BASE64`."""
    blob = base64.b64decode(line.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def new_pair() -> tuple[str, PublicKey]:
    """A private key as OpenSSH writes it, and its public half."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return text, PublicKey(public, "")


def parse(text: str) -> PublicKey:
    """Ed25519, ECDSA, or RSA of at least 2048 bits; Problem(invalid) for anything else."""
    parts = text.strip().split(None, 2)
    if len(parts) < 2 or "\n" in text.strip():
        raise errors.invalid("public_key", "Give one line such as 'ssh-ed25519 AAAA... name'.")
    line = f"{parts[0]} {parts[1]}"
    try:
        key = load_ssh_public_key(line.encode())
        base64.b64decode(parts[1], validate=True)
    except (ValueError, UnsupportedAlgorithm, binascii.Error) as error:
        raise errors.invalid("public_key", "It can't be read as a public key of SSH.") from error
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise errors.invalid("public_key", f"RSA keys need at least {MIN_RSA_BITS} bits; Ed25519 is better.")
    if not isinstance(key, RSAPublicKey | Ed25519PublicKey | EllipticCurvePublicKey):
        raise errors.invalid("public_key", "Use Ed25519, ECDSA or RSA.")
    return PublicKey(line, parts[2].strip() if len(parts) > 2 else "")
