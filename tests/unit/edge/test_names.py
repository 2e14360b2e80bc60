"""Which name a Host header means. Strangers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.edge.urls import names
from mags.protocol.ids import SUBDOMAIN


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("shop.apps.localhost", "shop.apps.localhost"),
        (" SHOP.Apps.localhost.:8080 ", "shop.apps.localhost"),
        ("shop.apps.localhost:", "shop.apps.localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:443", "::1"),
        ("[0:0::1]", "::1"),
    ],
)
def test_a_host_is_cleaned(header: str, host: str) -> None:
    assert names.clean(header) == host


@pytest.mark.parametrize(
    "header",
    ["", ".", "..", "a..b", "a b", "a/b", "a\\b", "a%2eb", "a@b", "a:b", "a:80:80", "[::1", "[::1]x", "[1]", "é.com",
     "-a.b", "a-.b", "_a.b", "a\0", "a\r\nb", "x" * 64 + ".com", ".".join(["x" * 60] * 5)],
)  # fmt: skip
def test_what_is_no_host_is_refused(header: str) -> None:
    with pytest.raises(ValueError):
        names.clean(header)


@given(st.text())
def test_whatever_comes_is_a_safe_host_or_refused(header: str) -> None:
    try:
        host = names.clean(header)
    except ValueError:
        return
    assert host and len(host) <= 253
    assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.:")
    key = names.split(host, "apps.localhost")
    assert key is None or SUBDOMAIN.fullmatch(key[0])


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("shop.apps.localhost", ("shop", None)),
        ("9000-shop.apps.localhost", ("9000-shop", None)),
        ("shop.example.com", ("shop", "example.com")),
        ("x.shop.apps.localhost", None),
        ("localhost", None),
        ("apps.localhost", ("apps", "localhost")),
        ("evil-apps.localhost", ("evil-apps", "localhost")),
    ],
)
def test_a_host_is_split_into_label_and_domain(host: str, key: tuple[str, str | None] | None) -> None:
    assert names.split(host, "apps.localhost") == key


@pytest.mark.parametrize("host", ["apps.localhost", "localhost", "127.0.0.1", "::1", "10.0.0.7"])
def test_the_edge_itself_is_no_public_name(host: str) -> None:
    assert names.is_ours(host, "apps.localhost")


def test_others_are() -> None:
    assert not names.is_ours("shop.apps.localhost", "apps.localhost")
