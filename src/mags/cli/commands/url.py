"""Open a VM's port to the web, and give stable names to workspaces.

mags url dev 3000                   open port 3000 of dev, print the URL
mags url dev --private              only with a token, or by the signed link that is printed
mags url dev --close                close it again
mags url alias add shop dev         http://shop.DOMAIN leads to dev's newest VM
"""

from __future__ import annotations

import argparse

from mags.cli.command import MISUSED, Refused, Session, add_json
from mags.sdk.calls import jobs, urls


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help="request id, name or workspace; or the word `alias`")
    parser.add_argument("words", nargs="*", metavar="port", help="the port (default 8080)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--private", action="store_true", help="only with a token or a signed link")
    kind.add_argument("--public", action="store_true", help="for everybody again")
    kind.add_argument("--close", action="store_true", help="close it")
    parser.add_argument("--domain", help="for `alias add`: another domain than the server's own")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    if arguments.job == "alias":
        return _alias(arguments, session)
    if len(arguments.words) > 1:
        raise Refused("Give one port. See `mags url --help`.", MISUSED)
    port = _port(arguments.words[0]) if arguments.words else 8080
    if arguments.close:
        session.sender.send(jobs.disable_access(arguments.job, port=port))
        session.console.note(f"Port {port} of {arguments.job} is closed.")
        return 0
    private = True if arguments.private else False if arguments.public else None
    access = session.sender.send(jobs.enable_access(arguments.job, port=port, private=private))
    if arguments.json:
        session.console.json(access)
    else:
        session.console.out(str(access.get("signed_url") or access.get("url")))
        for url in access.get("alias_urls", []):
            session.console.note(f"Also {url}")
    return 0


def _port(word: str) -> int:
    if not word.isdecimal() or not 0 < int(word) < 65536:
        raise Refused(f"{word!r} is no port. Give a number from 1 to 65535.", MISUSED)
    return int(word)


def _alias(arguments: argparse.Namespace, session: Session) -> int:
    match arguments.words:
        case ["add", subdomain, workspace]:
            alias = session.sender.send(urls.url_alias_create(subdomain, workspace, arguments.domain))
            session.console.json(alias) if arguments.json else session.console.out(alias["url"])
        case ["list"] | []:
            found = session.sender.send(urls.url_alias_list())
            if arguments.json:
                session.console.json(found)
                return 0
            rows = [(alias["subdomain"], alias["workspace_id"], alias["url"]) for alias in found["aliases"]]
            nothing = "No aliases. Make one: mags url alias add NAME WORKSPACE"
            session.console.table(("NAME", "WORKSPACE", "URL"), rows, nothing=nothing)
        case ["remove", subdomain]:
            session.sender.send(urls.url_alias_delete(subdomain))
            session.console.note(f"{subdomain} is removed.")
        case _:
            raise Refused("Use: mags url alias add NAME WORKSPACE | list | remove NAME", MISUSED)
    return 0
