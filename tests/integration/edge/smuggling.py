"""Requests that two programs could read differently, and a program that is sure how it has read what it gets."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

ATTACKER, VICTIM = "attacker.apps.localhost", "victim.apps.localhost"
INNER = f"GET /stolen HTTP/1.1\r\nHost: {VICTIM}\r\n\r\n"

# Each is one connection's bytes. Wherever a front and a program could count lengths differently, the rest of the one
# request must not become a request of its own, least of all to another tenant's VM.
SMUGGLED = {
    "cl-te": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nContent-Length: {5 + len(INNER)}\r\n"
    f"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{INNER}",
    "te-cl": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    f"{len(INNER):x}\r\n{INNER}\r\n0\r\n\r\n",
    "two-lengths": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nContent-Length: 0\r\n"
    f"Content-Length: {len(INNER)}\r\n\r\n{INNER}",
    "length-list": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nContent-Length: 0, {len(INNER)}\r\n\r\n{INNER}",
    "plus-length": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nContent-Length: +0\r\n\r\n{INNER}",
    "hex-length": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nContent-Length: 0x0\r\n\r\n{INNER}",
    "space-before-colon": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding : chunked\r\n"
    f"Content-Length: 5\r\n\r\n0\r\n\r\n{INNER}",
    "te-obscured": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding: xchunked\r\n"
    f"Content-Length: 5\r\n\r\n0\r\n\r\n{INNER}",
    "te-twice": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding: chunked\r\n"
    f"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n{INNER}",
    "te-list": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{INNER}",
    "te-tab": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding:\tchunked\x0b\r\n"
    f"Content-Length: 5\r\n\r\n0\r\n\r\n{INNER}",
    "te-folded": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nX: y\r\n Transfer-Encoding: chunked\r\n"
    f"Content-Length: 5\r\n\r\n0\r\n\r\n{INNER}",
    "te-http10": f"POST / HTTP/1.0\r\nHost: {ATTACKER}\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
    f"0\r\n\r\n{INNER}",
    "bare-lf": f"POST / HTTP/1.1\nHost: {ATTACKER}\nContent-Length: 0\nTransfer-Encoding: chunked\n\n0\n\n{INNER}",
    "bare-cr": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nX: y\rTransfer-Encoding: chunked\r\n"
    f"Content-Length: 5\r\n\r\n0\r\n\r\n{INNER}",
    "nul": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n{INNER}",
    "chunk-extension": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding: chunked\r\n\r\n"
    f"5;\n\r\nhello\r\n0\r\n\r\n{INNER}",
    "chunk-size-overflow": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding: chunked\r\n\r\n"
    f"10000000000000000\r\n\r\n0\r\n\r\n{INNER}",
    "chunk-negative": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{INNER}",
    "trailer": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nTransfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n"
    f"0\r\nHost: {VICTIM}\r\nContent-Length: {len(INNER)}\r\n\r\n{INNER}",
    "two-hosts": f"GET / HTTP/1.1\r\nHost: {ATTACKER}\r\nHost: {VICTIM}\r\n\r\n",
    "host-list": f"GET / HTTP/1.1\r\nHost: {ATTACKER}, {VICTIM}\r\n\r\n",
    "absolute": f"GET http://{VICTIM}@{ATTACKER}/ HTTP/1.1\r\nHost: {ATTACKER}\r\n\r\n",
    "line-in-target": f"GET / HTTP/1.1\r\nHost: {VICTIM}\r\nX: /\r HTTP/1.1\r\nHost: {ATTACKER}\r\n\r\n",
    "upgrade-h2c": f"GET / HTTP/1.1\r\nHost: {ATTACKER}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    f"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n{INNER}",
    "connect": f"CONNECT {VICTIM}:80 HTTP/1.1\r\nHost: {ATTACKER}\r\n\r\n{INNER}",
    "content-length-connection": f"POST / HTTP/1.1\r\nHost: {ATTACKER}\r\nConnection: Content-Length\r\n"
    f"Content-Length: {len(INNER)}\r\n\r\n{INNER}",
}

USUAL = {":method": b"POST", ":scheme": b"https", ":authority": ATTACKER.encode(), ":path": b"/"}
Fields = list[tuple[bytes, bytes]]


@dataclass
class Binary:
    """A request of HTTP/2 or HTTP/3. `pseudo` replaces the usual ones."""

    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    pseudo: dict[str, bytes] = field(default_factory=dict)
    without: str = ""
    """A pseudo field that is left out."""

    def headers(self, more: Fields) -> Fields:
        values = [(name, self.pseudo.get(name, value)) for name, value in USUAL.items() if name != self.without]
        values += [(name, value) for name, value in self.pseudo.items() if name not in USUAL]
        return [*((name.encode(), value) for name, value in values), *more, *self.fields]


_INNER, _VICTIM, _ATTACKER = INNER.encode(), VICTIM.encode(), ATTACKER.encode()
_CHUNKED = b"0\r\n\r\n" + _INNER

# What is one thing in a binary version of HTTP and may become two when it is written down in HTTP/1.1.
BINARY = {
    "usual": Binary([(b"trailer", b"x")], b"hello", [(b"x", b"y")]),
    "te": Binary([(b"transfer-encoding", b"chunked")], _CHUNKED),
    "te-cl": Binary([(b"transfer-encoding", b"chunked"), (b"content-length", b"5")], _CHUNKED),
    "te-upper": Binary([(b"Transfer-Encoding", b"chunked")], _CHUNKED),
    "te-in-value": Binary([(b"x", b"y\r\ntransfer-encoding: chunked")], _CHUNKED),
    "te-in-name": Binary([(b"x: y\r\ntransfer-encoding", b"chunked")], _CHUNKED),
    "te-chunked": Binary([(b"te", b"chunked")], _CHUNKED),
    "te-in-connection": Binary([(b"connection", b"transfer-encoding"), (b"transfer-encoding", b"chunked")], _CHUNKED),
    "length-short": Binary([(b"content-length", b"0")], _INNER),
    "length-long": Binary([(b"content-length", b"500")], b"hello"),
    "length-twice": Binary([(b"content-length", b"0"), (b"content-length", b"%d" % len(_INNER))], _INNER),
    "length-list": Binary([(b"content-length", b"0, %d" % len(_INNER))], _INNER),
    "length-plus": Binary([(b"content-length", b"+0")], _INNER),
    "length-in-connection": Binary([(b"connection", b"content-length"), (b"content-length", b"0")], _INNER),
    "upgrade": Binary([(b"upgrade", b"h2c"), (b"connection", b"upgrade")], _INNER),
    "lines-in-value": Binary([(b"x", b"y\r\n\r\n" + _INNER)]),
    "line-feed-in-value": Binary([(b"x", b"y\nhost: " + _VICTIM + b"\n\n" + _INNER)]),
    "return-in-value": Binary([(b"x", b"y\rhost: " + _VICTIM)]),
    "nul-in-value": Binary([(b"x", b"y\0host: " + _VICTIM)]),
    "line-feed-before-value": Binary([(b"x", b"\nhost: " + _VICTIM)]),
    "line-in-name": Binary([(b"x: y\r\nhost", _VICTIM)]),
    "colon-in-name": Binary([(b"host: " + _VICTIM + b"\r\nx", b"y")]),
    "space-in-name": Binary([(b"host ", _VICTIM)]),
    "empty-name": Binary([(b"", b"host: " + _VICTIM)]),
    "line-in-path": Binary(pseudo={":path": b"/ HTTP/1.1\r\nHost: " + _VICTIM + b"\r\n\r\nGET /stolen"}),
    "line-feed-in-path": Binary(pseudo={":path": b"/\nHost: " + _VICTIM}),
    "space-in-path": Binary(pseudo={":path": b"/ HTTP/1.1 X"}),
    "absolute-path": Binary(pseudo={":path": b"https://" + _VICTIM + b"/stolen"}),
    "path-of-a-host": Binary(pseudo={":path": b"//" + _VICTIM + b"/stolen"}),
    "path-without-slash": Binary(pseudo={":path": b"@" + _VICTIM + b"/stolen"}),
    "empty-path": Binary(pseudo={":path": b""}),
    "star": Binary(pseudo={":path": b"*", ":method": b"OPTIONS"}),
    "line-in-method": Binary(pseudo={":method": b"GET /stolen HTTP/1.1\r\nHost: " + _VICTIM + b"\r\n\r\nPOST"}),
    "space-in-method": Binary(pseudo={":method": b"GET /stolen HTTP/1.1 X"}),
    "line-in-authority": Binary(pseudo={":authority": _ATTACKER + b"\r\nHost: " + _VICTIM}),
    "user-in-authority": Binary(pseudo={":authority": _VICTIM + b"@" + _ATTACKER}),
    "list-in-authority": Binary(pseudo={":authority": _ATTACKER + b", " + _VICTIM}),
    "path-in-authority": Binary(pseudo={":authority": _ATTACKER + b"/" + _VICTIM}),
    "line-in-scheme": Binary(pseudo={":scheme": b"https\r\nHost: " + _VICTIM}),
    "url-in-scheme": Binary(pseudo={":scheme": b"https://" + _VICTIM + b"/stolen?"}),
    "host-differs": Binary([(b"host", _VICTIM)]),
    "two-hosts": Binary([(b"host", _ATTACKER), (b"host", _VICTIM)]),
    "two-hosts-alone": Binary([(b"host", _ATTACKER), (b"host", _VICTIM)], without=":authority"),
    "host-alone": Binary([(b"host", _ATTACKER)], without=":authority"),
    "path-twice": Binary([(b":path", b"/stolen")]),
    "authority-twice": Binary([(b":authority", _VICTIM)]),
    "method-twice": Binary([(b":method", b"GET")]),
    "pseudo-at-the-end": Binary([(b"x", b"y"), (b":path", b"/stolen")], without=":path"),
    "unknown-pseudo": Binary(pseudo={":host": _VICTIM}),
    "connect": Binary(pseudo={":method": b"CONNECT"}, body=_INNER),
    "extended-connect": Binary(pseudo={":method": b"CONNECT", ":protocol": b"websocket"}, body=_INNER),
    "trailers": Binary([(b"trailer", b"host")], b"hello", [(b"host", _VICTIM), (b"transfer-encoding", b"chunked")]),
    "lines-in-trailers": Binary([], b"hello", [(b"x", b"y\r\n\r\n" + _INNER)]),
    "pseudo-in-trailers": Binary([], b"hello", [(b":path", b"/stolen"), (b":authority", _VICTIM)]),
    "forwarded-target": Binary([(b"x-forwarded-uri", b"/stolen"), (b"x-forwarded-host", _VICTIM)]),
    "name-of-a-socket": Binary([(b"x-mags-socket", b"victim.sock"), (b"connection", b"x-mags-socket")]),
}


@dataclass
class Heard:
    """One connection's bytes."""

    data: bytearray = field(default_factory=bytearray)
    ended: bool = False


@dataclass
class Recorder:
    """A program that keeps the bytes of each of its connections, and answers every request it can make out."""

    connections: list[Heard] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = Heard()
        self.connections.append(heard)
        answered = 0
        try:
            while data := await reader.read(1 << 16):
                heard.data += data
                whole = 0
                with contextlib.suppress(Incomplete):
                    for _ in strictly(bytes(heard.data)):
                        whole += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * (whole - answered))
                answered = whole
        finally:
            heard.ended = True

    async def hosts(self) -> list[str]:
        """Of every request, in the one way in which these bytes can be read. Ambiguous when there are two. A request
        whose rest never came (its sender has left, or has sent no valid body) is one too, the last of its connection,
        which must have ended then."""
        found = []
        for heard in self.connections:
            try:
                for host in strictly(bytes(heard.data)):
                    found.append(host)
            except Incomplete as incomplete:
                found += incomplete.args
                async with asyncio.timeout(60):
                    while not heard.ended:
                        await asyncio.sleep(0.01)
        return found


class Incomplete(Exception):
    """A request's end has not come. With its Host, when its head is whole."""


class Ambiguous(Exception):
    """Two programs could read these bytes differently."""


def strictly(data: bytes) -> Iterator[str]:
    """The Host of each request on a connection, whose length must not be in doubt (RFC 9112, 6)."""
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        if not end:
            raise Incomplete
        if re.search(rb"[\0\x0b\x0c]|\r(?!\n)|(?<!\r)\n", head) or re.search(rb"\r\n[ \t]|\r\n[^:\r]*[ \t]:", head):
            raise Ambiguous(head)
        first, *lines = head.split(b"\r\n")
        if not re.fullmatch(rb"[!-~]+ [!-~]+ HTTP/1\.[01]", first):
            raise Ambiguous(head)
        fields = [line.partition(b":")[::2] for line in lines]
        values: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            values.setdefault(name.lower(), []).append(value.strip())
        lengths, codings = values.get(b"content-length", []), values.get(b"transfer-encoding", [])
        if len(lengths) + len(codings) > 1 or len(values.get(b"host", [])) != 1:
            raise Ambiguous(head)
        if (codings and codings != [b"chunked"]) or (lengths and not re.fullmatch(rb"[0-9]+", lengths[0])):
            raise Ambiguous(head)
        host = values[b"host"][0].decode("latin-1")
        try:
            data = after_chunks(data) if codings else after_length(data, int(lengths[0]) if lengths else 0)
        except Incomplete:
            raise Incomplete(host) from None
        yield host


def after_length(data: bytes, length: int) -> bytes:
    if len(data) < length:
        raise Incomplete
    return data[length:]


def after_chunks(data: bytes) -> bytes:
    while True:
        size, end, data = data.partition(b"\r\n")
        if not end:
            raise Incomplete
        if not re.fullmatch(rb"[0-9a-f]{1,8}", size):
            raise Ambiguous(size)
        if int(size, 16) == 0:
            _, end, data = (b"\r\n" + data).partition(b"\r\n\r\n")
            if not end:
                raise Incomplete
            return data
        data = after_length(data, int(size, 16) + 2)
