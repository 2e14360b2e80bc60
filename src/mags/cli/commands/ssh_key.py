"""List, add and remove the SSH keys that open your sandboxes."""

from __future__ import annotations

import argparse
from pathlib import Path

from mags.cli.command import MISUSED, Refused, Session, add_json
from mags.cli.times import since
from mags.sdk.calls import account


def describe(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add_json(verbs.add_parser("list", help="list them"))
    add = verbs.add_parser("add", help="add a public key")
    add.add_argument("file", nargs="?", help="such as ~/.ssh/id_ed25519.pub (the default), or the key itself")
    add.add_argument("--name", help="what to call it (default: its comment)")
    add_json(add)
    verbs.add_parser("remove", help="remove one").add_argument("key", help="its id or name")


def run(arguments: argparse.Namespace, session: Session) -> int:
    console = session.console
    match arguments.verb:
        case "add":
            key = _public_key(arguments.file)
            made = session.sender.send(account.add_ssh_key(key, name=arguments.name))
            console.json(made) if arguments.json else console.note(f"The key is added: {made.get('fingerprint')}.")
        case "list":
            found = session.sender.send(account.list_ssh_keys())
            if arguments.json:
                console.json(found)
                return 0
            rows = [
                (key["id"], key.get("name"), key.get("fingerprint"), since(key.get("created_at")))
                for key in found["ssh_keys"]
            ]
            console.table(("ID", "NAME", "FINGERPRINT", "ADDED"), rows, nothing="No keys. Add yours: mags ssh-key add")
        case "remove":
            keys = session.sender.send(account.list_ssh_keys())["ssh_keys"]
            ids = [key["id"] for key in keys if key.get("name") == arguments.key]
            if len(ids) > 1:
                raise Refused(f"{len(ids)} keys are called {arguments.key}. Give the id (`mags ssh-key list`).")
            session.sender.send(account.delete_ssh_key(ids[0] if ids else arguments.key))
            console.note(f"{arguments.key} is removed.")
    return 0


def _public_key(word: str | None) -> str:
    if word is not None and word.startswith(("ssh-", "ecdsa-", "sk-")):
        return word.strip()
    path = Path(word or "~/.ssh/id_ed25519.pub").expanduser()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            f"{path} can't be read. Give the file of a public key, or make one: ssh-keygen -t ed25519"
        ) from error
    if "PRIVATE KEY" in text:
        raise Refused(f"{path} is a private key: never give it away. Give {path}.pub.", MISUSED)
    return text.strip()
