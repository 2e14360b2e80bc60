"""What httpx says when no answer comes, as transports say it."""

from __future__ import annotations

import socket
import ssl

import httpx

from mags.sdk.transports import ConnectionBroke


def broke(error: httpx.TransportError) -> ConnectionBroke:
    """Whether the request may have been carried out (`sent`), and whether nobody listens there (`refused`)."""
    words = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError):
        return ConnectionBroke(words, sent=False, refused=isinstance(error, httpx.ConnectError) and _is_refusal(error))
    return ConnectionBroke(words, sent=True, timed_out=isinstance(error, httpx.TimeoutException))


def _is_refusal(error: BaseException) -> bool:
    """Whether nobody listens there; not a name that nobody knows, nor a certificate that is not trusted."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ssl.SSLError | socket.gaierror):
            return False
        link = link.__cause__ or link.__context__
    return True
