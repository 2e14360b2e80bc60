"""List, make and revoke API tokens."""

from __future__ import annotations

import argparse

from mags.cli.command import Refused, Session, add_json, add_paging, note_hidden
from mags.cli.times import since
from mags.sdk.calls import account


def describe(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="list them, the oldest first")
    add_paging(listing)
    add_json(listing)
    make = verbs.add_parser("create", help="make one; it is printed once")
    make.add_argument("name", help="what it is for")
    make.add_argument("--expires", metavar="TIME", help="when it ends (ISO 8601)")
    make.add_argument("--scope", action="append", metavar="SCOPE", help="what it may do (repeatable; default all)")
    add_json(make)
    verbs.add_parser("revoke", help="make one void").add_argument("token", help="its id or name")


def run(arguments: argparse.Namespace, session: Session) -> int:
    console = session.console
    match arguments.verb:
        case "create":
            call = account.create_token(arguments.name, expires_at=arguments.expires, scopes=arguments.scope)
            made = session.sender.send(call)
            secret = made.get("token")
            if secret is None:  # made by a request whose answer was lost: nobody has it
                session.sender.send(account.delete_token(made["id"]))
                raise Refused("The answer with the token was lost on its way, so it is void now. Make another.")
            if arguments.json:
                console.json(made)
            else:
                console.out(secret)
                console.note("This is the only time that it is shown.")
        case "list":
            found = session.sender.send(account.list_tokens(page=arguments.page, page_size=arguments.number))
            if arguments.json:
                console.json(found)
                return 0
            rows = [
                (token["id"], token["name"], since(token["created_at"]), since(token["last_used_at"]) or "never",
                 since(token["expires_at"]) or "never")
                for token in found["tokens"]
            ]  # fmt: skip
            console.table(("ID", "NAME", "CREATED", "USED", "ENDS"), rows, nothing="No tokens.")
            note_hidden(console, found, len(rows), "more")
        case "revoke":
            ids = [
                token["id"]
                for token in session.sender.send(account.list_tokens())["tokens"]
                if token["name"] == arguments.token
            ]
            if len(ids) > 1:
                raise Refused(f"{len(ids)} tokens are called {arguments.token}. Give the id (`mags token list`).")
            session.sender.send(account.delete_token(ids[0] if ids else arguments.token))
            console.note(f"{arguments.token} is void.")
    return 0
