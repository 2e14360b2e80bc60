"""The pages that people see."""

from __future__ import annotations

import pytest

from mags.edge.urls import pages
from mags.edge.urls.pages import Page

ALL = [
    pages.unknown("x.example"),
    pages.closed("x.example", 80),
    pages.stopped("x.example"),
    pages.starting("x.example"),
    pages.private("x.example"),
    pages.not_listening(8080, 10.0),
    pages.dropped(),
    pages.went_down(),
    pages.changed("x.example"),
    pages.no_room(),
    pages.trouble(),
]


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.title)
def test_a_page_is_a_whole_http_answer(page: Page) -> None:
    head, _, body = page.raw().partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")

    assert lines[0].startswith(f"HTTP/1.1 {page.status} ")
    assert f"Content-Length: {len(body)}" in lines
    assert "Connection: close" in lines
    assert "Cache-Control: no-store" in lines
    assert page.title.encode() in body


def test_names_from_outside_are_escaped() -> None:
    body = pages.unknown('<script>alert("x")</script>').body()
    assert b"<script>" not in body
    assert b"&lt;script&gt;" in body


def test_whole_pages_keep_caddys_placeholders_out() -> None:
    """Caddy replaces {placeholders} in the body of a static answer."""
    assert "{http" not in pages.dropped().body().decode()
