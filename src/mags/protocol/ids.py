"""Names and identifiers, and what makes one valid."""

from __future__ import annotations

import re
import secrets
import uuid

WORKSPACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""A workspace's name, as API.md gives it."""
JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,127}")
IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""One DNS label (RFC 1035, with a digit allowed first by RFC 1123)."""
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HOST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""One NATS subject token."""


def new_id() -> str:
    """A random UUID (RFC 9562 version 4) as text."""
    return str(uuid.uuid4())


def is_id(text: str) -> bool:
    """Whether `text` is a UUID in its usual form."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def new_label(length: int = 12) -> str:
    """A random DNS label, without letters that look alike; 12 characters carry 60 bits."""
    return secrets.choice(_LETTERS[:23]) + "".join(secrets.choice(_LETTERS) for _ in range(length - 1))


_FIRST = ("amber", "brave", "calm", "clever", "eager", "fancy", "gentle", "happy", "jolly", "kind", "lively", "merry",
          "nimble", "proud", "quick", "quiet", "shiny", "smart", "sunny", "witty")  # fmt: skip
_SECOND = ("badger", "beaver", "crane", "dolphin", "eagle", "falcon", "finch", "fox", "heron", "koala", "lark", "lynx",
           "magpie", "otter", "owl", "panda", "raven", "robin", "seal", "wren")  # fmt: skip


def made_up_name() -> str:
    """A name for a job that was given none: two words and four characters."""
    return f"{secrets.choice(_FIRST)}-{secrets.choice(_SECOND)}-{new_label(4)}"
