"""The pages that people see when a public URL can't be shown: what is wrong, and what to do.

Strangers read them: they name nothing but the address and its port. What the owner or the operator wants to know beyond
that (the sandbox, the host, why) is in the edge's log.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP answer with a short text. `retry_after` in seconds."""

    status: int
    title: str
    text: str
    owner: str = ""
    retry_after: int | None = None

    @property
    def headers(self) -> list[tuple[str, str]]:
        headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Cache-Control", "no-store"),
            ("X-Mags-Error", str(self.status)),
        ]
        if self.retry_after is not None:
            headers.append(("Retry-After", str(self.retry_after)))
        return headers

    def body(self) -> bytes:
        owner = f'\n<p class="owner">If it is yours: {html.escape(self.owner)}</p>' if self.owner else ""
        return _FRAME.format(
            status=self.status, title=html.escape(self.title), text=html.escape(self.text), owner=owner
        ).encode()

    def raw(self) -> bytes:
        """The whole answer in HTTP/1.1, after which the connection closes."""
        body = self.body()
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        return "\r\n".join(lines).encode() + body


_FRAME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto 0; padding: 0 1.5rem }}
h1 {{ font-size: 1.4rem }}
.status {{ opacity: .6; font-variant-numeric: tabular-nums }}
.owner {{ border-left: 3px solid currentColor; padding-left: 1rem; opacity: .8 }}
</style>
<p class="status">{status}</p>
<h1>{title}</h1>
<p>{text}</p>{owner}
</html>
"""


def unknown(host: str) -> Page:
    return Page(404, "No such address", f"Nothing is published at {host}.", "look at `mags list` and `mags url NAME`.")


def closed(host: str, port: int) -> Page:
    return Page(
        404,
        "Nothing is published here",
        f"{host} is not open to the public.",
        f"open it with `mags url NAME {port}`.",
    )


def stopped(host: str) -> Page:
    return Page(
        410,
        "This has ended",
        f"The machine behind {host} was stopped.",
        "start it again with `mags run` or `mags new`.",
    )


def starting(host: str) -> Page:
    return Page(503, "Starting", f"The machine behind {host} is still starting. Try again soon.", retry_after=5)


def private(host: str) -> Page:
    return Page(
        403,
        "This address is private",
        f"{host} opens with a link or a token from its owner.",
        "make a link with `mags url NAME --private`, or send an API token in the header X-Mags-Token.",
    )


def not_listening(port: int, waited: float) -> Page:
    return Page(
        502,
        "The program is not answering",
        f"The machine is up, but no program in it listens on port {port} (waited {waited:g} s).",
        f"start your server on 0.0.0.0:{port}, and see `mags logs NAME`.",
        retry_after=5,
    )


def dropped() -> Page:
    return Page(
        502,
        "The program did not answer",
        "The program in the machine closed the connection before it had answered.",
        "see its output with `mags logs NAME`.",
    )


def went_down() -> Page:
    return Page(
        503,
        "The machine went down",
        "The machine was put to sleep, or ended, before its program had answered. It may or may not have done what was "
        "asked.",
        "see `mags status NAME`; a machine that sleeps wakes with the next request.",
        retry_after=5,
    )


def changed(host: str) -> Page:
    return Page(503, "Not available now", f"{host} has just changed. Load it again.", retry_after=1)


def no_room() -> Page:
    return Page(
        503,
        "No room now",
        "There is no room to wake this machine at the moment. Try again soon.",
        "stop a VM that you don't need, or put one to sleep; `mags pool` says what is free.",
        retry_after=5,
    )


def trouble() -> Page:
    return Page(
        503,
        "Not available now",
        "This can't be shown at the moment. Try again soon.",
        "see `mags status NAME`; the log of `mags edge` says why.",
        retry_after=5,
    )


def problem(code: str) -> Page:
    """For a problem (protocol.errors) whose sentence is for the log only."""
    return no_room() if code == "no_capacity" else trouble()
