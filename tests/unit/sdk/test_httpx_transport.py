"""What becomes of httpx's errors: each leads to a sentence of its own."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest

from mags.sdk import async_httpx_transport, httpx_transport


@pytest.mark.parametrize("broke", [httpx_transport._broke, async_httpx_transport._broke], ids=["sync", "async"])
@pytest.mark.parametrize(("cause", "refused"), [
    (ConnectionRefusedError(111, "Connection refused"), True),
    (socket.gaierror(-2, "Name or service not known"), False),
    (ssl.SSLCertVerificationError("self-signed certificate"), False),
])  # fmt: skip
def test_only_where_nobody_listens_a_server_is_to_be_started(broke: object, cause: OSError, refused: bool) -> None:
    try:
        raise httpx.ConnectError(str(cause)) from cause
    except httpx.ConnectError as error:
        found = broke(error)  # type: ignore[operator]
    assert (found.sent, found.refused) == (False, refused)
