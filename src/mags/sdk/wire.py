"""One HTTP/1.1 connection on the standard library: what a command needs for its one or two requests.

Importing an HTTP library costs more time than running a script in a microVM; this costs a quarter of it. It follows
no redirects and knows no proxies (see `suits`).
"""

from __future__ import annotations

import http.client
import os
import select
import socket
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from mags.sdk.settings import is_local
from mags.sdk.transports import ConnectionBroke, Request

CHUNK = 1 << 18
"""Bytes read at once at most."""
CONNECT_TIMEOUT = 10.0


def suits(api_url: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether no proxy stands between us and the server."""
    if is_local(api_url):
        return True
    names = {f"{urlsplit(api_url).scheme}_proxy", "all_proxy"}
    return not any(environment.get(name) or environment.get(name.upper()) for name in names)


class Wire:
    """A transport for one thread. `timeout` is the longest silence in seconds."""

    def __init__(self, api_url: str, *, timeout: float = 30.0) -> None:
        parts = urlsplit(api_url)
        self._base = parts.path.rstrip("/")
        self._timeout = timeout
        assert parts.hostname is not None
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=CONNECT_TIMEOUT)
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=CONNECT_TIMEOUT)

    def open(self, request: Request) -> WireExchange:
        timeout = self._timeout if request.timeout is None else request.timeout
        connection = self._connection
        try:
            self._connect(timeout)
        except ConnectionRefusedError as error:
            connection.close()
            raise ConnectionBroke(str(error), sent=False, refused=True) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ConnectionBroke(str(error) or type(error).__name__, sent=False) from error
        try:
            return self._exchange(request)
        except http.client.RemoteDisconnected as error:
            connection.close()
            raise ConnectionBroke("the server closed the connection", sent=True) from error
        except TimeoutError as error:
            connection.close()
            raise ConnectionBroke(f"no answer for {timeout:g} s", sent=True, timed_out=True) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ConnectionBroke(str(error) or type(error).__name__, sent=True) from error

    def close(self) -> None:
        self._connection.close()

    def _connect(self, timeout: float) -> None:
        connection = self._connection
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            # Nothing is due, so this is the end: the server closes connections that idle for long.
            connection.close()
        if connection.sock is None:
            connection.connect()
        opened = connection.sock
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.settimeout(timeout)

    def _exchange(self, request: Request) -> WireExchange:
        connection = self._connection
        body, headers = request.body, dict(request.headers)
        chunked = callable(body) and "Content-Length" not in headers
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        content = body() if callable(body) else body
        try:
            connection.request(request.method, self._base + request.target, content, headers, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a big body answers and closes before it has read everything.
            pass
        return WireExchange(connection, connection.getresponse())


class WireExchange:
    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.getheaders()}
        self._connection, self._response = connection, response

    def chunks(self) -> Iterator[bytes]:
        try:
            while chunk := self._response.read1(CHUNK):
                yield chunk
            if self._response.length:
                raise ConnectionBroke("the answer was cut off", sent=True)
            self._response.read()
        except TimeoutError as error:
            raise ConnectionBroke("the answer stopped coming", sent=True, timed_out=True) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ConnectionBroke(str(error) or type(error).__name__, sent=True) from error

    def close(self) -> None:
        """An answer that was not read to its end takes its connection with it."""
        if not self._response.isclosed():
            self._response.close()
            self._connection.close()
