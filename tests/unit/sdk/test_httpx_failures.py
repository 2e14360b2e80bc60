"""What becomes of httpx's errors: each leads to a sentence of its own."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest

from mags.sdk.httpx_failures import broke


@pytest.mark.parametrize(("cause", "refused"), [
    (ConnectionRefusedError(111, "Connection refused"), True),
    (socket.gaierror(-2, "Name or service not known"), False),
    (ssl.SSLCertVerificationError("self-signed certificate"), False),
])  # fmt: skip
def test_only_where_nobody_listens_a_server_is_to_be_started(cause: OSError, refused: bool) -> None:
    try:
        raise httpx.ConnectError(str(cause)) from cause
    except httpx.ConnectError as error:
        found = broke(error)
    assert (found.sent, found.refused) == (False, refused)
