"""The CLI's own HTTP client, on real sockets, with servers that behave well and badly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mags.sdk.transports import ConnectionBroke, Request
from mags.sdk.wire import Wire, suits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def read_request(connection: socket.socket) -> bytes:
    """Head and body of one request; b"" when the client has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            got = connection.recv(65536)
        except ConnectionResetError:
            return b""
        if not got:
            return b""
        data += got
    head, _, body = data.partition(b"\r\n\r\n")
    fields = {k.lower(): v.strip() for k, _, v in (line.partition(b":") for line in head.split(b"\r\n")[1:])}
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
    while len(body) < int(fields.get(b"content-length", 0)):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(handle: Callable[[socket.socket, int], None]) -> Iterator[str]:
    """Each connection is given to `handle`, with its number from 0 on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        threads = []

        def accept() -> None:
            number = 0
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.settimeout(60)
                thread = threading.Thread(target=one, args=(connection, number))
                thread.start()
                threads.append(thread)
                number += 1

        def one(connection: socket.socket, number: int) -> None:
            with connection:
                handle(connection, number)

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(60)
            for thread in threads:
                thread.join(60)


def body(wire: Wire, request: Request) -> bytes:
    exchange = wire.open(request)
    try:
        return b"".join(exchange.chunks())
    finally:
        exchange.close()


def test_one_connection_serves_many_requests() -> None:
    numbers = []

    def handle(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            numbers.append(number)
            connection.sendall(OK)

    with serving(handle) as url:
        wire = Wire(url)
        assert [body(wire, Request("GET", "/")) for _ in range(3)] == [b"ok"] * 3
        wire.close()
    assert numbers == [0, 0, 0]


def test_a_connection_that_the_server_closed_meanwhile_is_made_again() -> None:
    closed = threading.Event()

    def handle(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(OK)
        connection.close()
        closed.set()

    with serving(handle) as url:
        wire = Wire(url)
        assert body(wire, Request("POST", "/", body=b"x")) == b"ok"
        assert closed.wait(60)
        assert body(wire, Request("POST", "/", body=b"x")) == b"ok"
        wire.close()


def test_bodies_are_sent_whole_or_in_chunks() -> None:
    seen = []

    def handle(connection: socket.socket, number: int) -> None:
        while request := read_request(connection):
            seen.append(request)
            connection.sendall(OK)

    with serving(handle) as url:
        wire = Wire(url)
        body(wire, Request("PUT", "/a", {"X-Y": "z"}, b"whole"))
        body(wire, Request("PUT", "/b", {}, lambda: iter([b"in ", b"", b"pieces"])))
        body(wire, Request("PUT", "/c", {"Content-Length": "4"}, lambda: iter([b"12", b"34"])))
        wire.close()
    assert b"X-Y: z\r\n" in seen[0] and seen[0].endswith(b"\r\n\r\nwhole")
    assert seen[1].endswith(b"3\r\nin \r\n6\r\npieces\r\n0\r\n\r\n")
    assert b"Transfer-Encoding" not in seen[2] and seen[2].endswith(b"\r\n\r\n1234")


def test_a_stream_comes_as_it_is_sent() -> None:
    go_on = threading.Event()

    def handle(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert go_on.wait(60)
        connection.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    with serving(handle) as url:
        wire = Wire(url)
        exchange = wire.open(Request("GET", "/"))
        chunks = exchange.chunks()
        assert next(chunks) == b"one"
        go_on.set()
        assert list(chunks) == [b"two"]
        exchange.close()
        wire.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
def test_half_an_answer_is_an_error(answer: bytes) -> None:
    def handle(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(answer)

    with serving(handle) as url:
        wire = Wire(url)
        with pytest.raises(ConnectionBroke) as raised:
            body(wire, Request("GET", "/"))
        wire.close()
        assert raised.value.sent and not raised.value.timed_out


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 100_000])
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    def handle(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(answer)

    with serving(handle) as url:
        wire = Wire(url)
        with pytest.raises(ConnectionBroke) as raised:
            body(wire, Request("GET", "/"))
        wire.close()
        assert raised.value.sent


def test_silence_is_an_error_in_time() -> None:
    done = threading.Event()

    def handle(connection: socket.socket, number: int) -> None:
        read_request(connection)
        if number:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        assert done.wait(60)

    with serving(handle) as url:
        wire = Wire(url)
        for _ in range(2):
            with pytest.raises(ConnectionBroke) as raised:
                body(wire, Request("GET", "/", timeout=0.1))
            assert raised.value.timed_out
        done.set()


def test_nobody_there_is_known_as_such() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionBroke) as raised:
        Wire(f"http://127.0.0.1:{port}").open(Request("GET", "/"))
    assert raised.value.refused and not raised.value.sent


def test_an_upload_that_is_refused_early_is_answered() -> None:
    def handle(connection: socket.socket, number: int) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    with serving(handle) as url:
        wire = Wire(url)
        exchange = wire.open(Request("PUT", "/", {}, b"x" * 5_000_000))
        assert exchange.status == 413 and b"".join(exchange.chunks()) == b"no"
        exchange.close()
        wire.close()


def test_an_answer_that_nobody_reads_takes_its_connection_with_it() -> None:
    numbers = []

    def handle(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            numbers.append(number)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
            except OSError:
                return

    with serving(handle) as url:
        wire = Wire(url)
        for _ in range(2):
            exchange = wire.open(Request("GET", "/"))
            next(exchange.chunks())
            exchange.close()
    assert numbers == [0, 1]


def test_a_proxy_is_left_to_the_larger_client() -> None:
    assert suits("http://127.0.0.1:1", {"http_proxy": "http://proxy"})
    assert suits("https://mags.example.org", {"http_proxy": "http://proxy"})
    assert not suits("https://mags.example.org", {"HTTPS_PROXY": "http://proxy"})
    assert not suits("http://mags.example.org", {"all_proxy": "http://proxy"})
