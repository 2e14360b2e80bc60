"""What every command file has, and what is done around it.

A command file offers `describe(parser)`, which adds its arguments, and `run(arguments, session)`, which returns the
exit status. `session.sender` connects when it is first used. PLATFORM = True makes our own failures 125, LOCAL = True
leaves the arguments out that say where the server is.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from mags.cli.console import Console

if TYPE_CHECKING:
    from mags.sdk.sender import Sender
    from mags.sdk.settings import Settings

FAILED, MISUSED, PLATFORM_FAILED = 1, 2, 125


class Command(Protocol):
    def describe(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace, session: Session) -> int: ...


class Refused(Exception):
    """The command can't be done; the sentence says what to do. `status` is the exit status."""

    def __init__(self, sentence: str, status: int = FAILED) -> None:
        super().__init__(sentence)
        self.status = status


class Session:
    """What a command works with: the console, and the way to the server."""

    def __init__(self, console: Console, *, api_url: str | None = None, api_token: str | None = None) -> None:
        self.console = console
        self._api_url, self._api_token = api_url, api_token

    @cached_property
    def settings(self) -> Settings:
        from mags.sdk import settings

        return settings.find(self._api_token, self._api_url)

    @cached_property
    def sender(self) -> Sender:
        from mags.sdk import wire
        from mags.sdk.sender import Sender

        url = self.settings.api_url
        if wire.suits(url):
            return Sender(self.settings, wire.Wire(url))
        from mags.sdk.httpx_transport import Httpx

        return Sender(self.settings, Httpx(url, timeout=30.0))

    def close(self) -> None:
        if "sender" in self.__dict__:
            self.sender.close()


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.", MISUSED)


def execute(module: Any, name: str, words: list[str], console: Console) -> int:
    """Parse, run, and say what went wrong in one line."""
    from mags.sdk.errors import MagsError

    command: Command = module
    session = None
    try:
        arguments = parser(module, name).parse_args(words)
        session = Session(
            console,
            api_url=getattr(arguments, "api_url", None),
            api_token=getattr(arguments, "api_token", None),
        )
        return command.run(arguments, session)
    except Refused as refused:
        console.complain(str(refused))
        return refused.status
    except MagsError as error:
        console.complain(str(error))
        return PLATFORM_FAILED if getattr(module, "PLATFORM", False) else FAILED
    except SystemExit as ended:  # --help
        return ended.code if isinstance(ended.code, int) else FAILED
    finally:
        if session is not None:
            session.close()


def parser(module: Any, name: str) -> argparse.ArgumentParser:
    made = Parser(
        prog=f"mags {name}",
        description=(module.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.describe(made)
    if not getattr(module, "LOCAL", False):
        made.add_argument(
            "--api-url", metavar="URL", help="the server (default: MAGS_API_URL, then ~/.mags/config.json)"
        )
        made.add_argument("--api-token", metavar="TOKEN", help="the token (default: MAGS_API_TOKEN, likewise)")
    return made


def add_paging(parser: argparse.ArgumentParser, *, number: int | None = None) -> None:
    """-n and --page, for `page_size` and `page` of a list. `number`: how many by default; None: as many as come."""
    default = "all" if number is None else number
    parser.add_argument(
        "-n", "--number", type=int, default=number, metavar="N", help=f"how many at most (default {default})"
    )
    parser.add_argument("--page", type=int, default=1, help="the page of that many (default 1)")


def note_hidden(console: Console, found: Mapping[str, Any], shown: int, what: str) -> None:
    """Say how many are on later pages than the one in `found` (`total`, `page`, `page_size`)."""
    page = found.get("page", 1)
    hidden = found["total"] - found.get("page_size", 0) * (page - 1) - shown
    if hidden > 0:
        console.note(f"{hidden} {what}: --page {page + 1}")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
