"""The configuration of our nats-server: JetStream, one user for each program with its own subjects."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from mags.kit.files import write_atomic
from mags.protocol import edge, subjects

USERS = ("control", "host", "edge", "supervisor")
REPLIES = "_INBOX.>"

PERMISSIONS: dict[str, dict[str, Any]] = {
    "control": {
        "publish": {
            "allow": ["mags.host.*.rpc.*", "mags.session.*.in", "mags.edge.>", "mags.output.*", "$JS.>", "$O.>",
                      REPLIES]
        },
        "subscribe": {
            "allow": ["mags.presence.*", "mags.event.*", "mags.output.*", "mags.session.*.out",
                      subjects.EVENTS_DELIVERY, edge.CONTROL, "$JS.>", "$O.>", REPLIES]
        },
    },
    "host": {
        "publish": {
            "allow": ["mags.presence.*", "mags.event.*", "mags.output.*", "mags.session.*.out", edge.release("*"),
                      subjects.claim("*"), "$JS.>", REPLIES],
            "deny": ["$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.PURGE.>", "$JS.API.STREAM.MSG.DELETE.>"],
        },
        "subscribe": {"allow": ["mags.host.*.>", subjects.claim("*"), "mags.session.*.in", "$O.>", "$JS.>", REPLIES]},
    },
    "edge": {
        "publish": {
            "allow": [edge.CONTROL, "mags.host.*.rpc.dial", "mags.host.*.rpc.open", "mags.host.*.activity.*",
                      "mags.session.*.in", REPLIES]
        },
        "subscribe": {"allow": ["mags.presence.*", "mags.event.*", "mags.edge.>", "mags.session.*.out", REPLIES]},
    },
    "supervisor": {
        "publish": {"allow": ["mags.host.*.rpc.*"]},
        "subscribe": {"allow": ["mags.presence.*", REPLIES]},
    },
}  # fmt: skip
"""Subjects as in mags.protocol.subjects and mags.protocol.edge; `$JS` is JetStream's API, `$O` its object stores."""


def passwords(path: Path) -> dict[str, str]:
    """The programs' passwords; made the first time."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        found = {}
    users = {user: str(found.get(user) or secrets.token_urlsafe(24)) for user in USERS}
    if users != found:
        write_atomic(path, json.dumps(users).encode(), mode=0o600)
    return users


def url(user: str, users: dict[str, str], address: str) -> str:
    """What a program connects to."""
    return f"nats://{user}:{users[user]}@{address}"


def configuration(*, address: str, store: Path, users: dict[str, str], server_name: str) -> str:
    """The text of nats-server's configuration file (its format takes JSON)."""
    config = {
        "server_name": server_name,
        "listen": address,
        "max_payload": subjects.MAX_PAYLOAD,
        "max_pending": 256 << 20,
        "jetstream": {"store_dir": str(store), "max_memory_store": 64 << 20, "max_file_store": 16 << 30},
        "authorization": {
            "users": [
                {"user": user, "password": users[user], "permissions": PERMISSIONS[user]} for user in USERS
            ]
        },
    }  # fmt: skip
    return json.dumps(config, indent=2)
