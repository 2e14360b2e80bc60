"""When a connection is between two requests."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.edge.urls.exchange import Exchange

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
PIECES = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("request_", [GET, POST, CHUNKED])
@pytest.mark.parametrize("answer", [OK, PIECES, NOTHING, CONTINUE + OK])
def test_it_is_idle_again_after_the_last_byte_of_both_and_not_before(request_: bytes, answer: bytes) -> None:
    exchange = Exchange()
    for _ in range(2):  # one after the other
        assert exchange.idle
        for byte in request_:
            exchange.asked(bytes((byte,)))
            assert not exchange.idle and not exchange.begun
        for byte in answer:
            assert not exchange.idle
            exchange.answered(bytes((byte,)))
        assert exchange.idle


MESSAGES = (
    (GET, OK),
    (POST, PIECES),
    (GET, PIECES),
    (HEAD, HEADERS),
    (GET, CONTINUE + OK),
    (CHUNKED, NOTHING),
    (GET, OK),
)


@given(st.randoms(use_true_random=False))
def test_how_the_bytes_are_cut_makes_no_difference(random: Random) -> None:
    exchange = Exchange()
    for request, answer in MESSAGES:
        assert exchange.idle
        for take, message in ((exchange.asked, request), (exchange.answered, answer)):
            while message:
                size = random.choice((len(message), random.randint(1, len(message))))
                take(message[:size])
                message = message[size:]
                assert exchange.idle is (message == b"" and take == exchange.answered)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    ],
)
def test_an_answer_that_is_not_whole_is_not_over(answer: bytes) -> None:
    exchange = Exchange()
    exchange.asked(GET)
    exchange.answered(answer)
    assert not exchange.idle


def test_lengths_are_found_however_they_are_spelled() -> None:
    for line in (b"content-length:5", b"CONTENT-LENGTH: 5  ", b"Content-Length:\t5"):
        exchange = Exchange()
        exchange.asked(GET)
        exchange.answered(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\nhello")
        assert exchange.idle


def test_an_answer_to_head_has_no_body() -> None:
    exchange = Exchange()
    for request, answer in ((HEAD, HEADERS), (GET, OK), (HEAD, CONTINUE + HEADERS), (POST, OK)):
        exchange.asked(request)
        assert not exchange.idle
        exchange.answered(answer)
        assert exchange.idle, request


def test_a_body_that_comes_after_its_answer_belongs_to_the_same_request() -> None:
    exchange = Exchange()
    exchange.asked(POST[:-2])
    exchange.answered(OK)
    assert not exchange.idle
    exchange.asked(POST[-2:])
    assert exchange.idle


@pytest.mark.parametrize(
    ("request_", "answer"),
    [(UPGRADE, SWITCHED), (UPGRADE, OK), (GET, ENDLESS), (GET, b"\xff\0garbage\r\n\r\n"), (b"\0\r\n\r\n", OK)],
)
def test_what_can_not_be_followed_is_never_idle_again(request_: bytes, answer: bytes) -> None:
    exchange = Exchange()
    exchange.asked(request_)
    exchange.answered(answer)
    exchange.answered(b"more")
    exchange.asked(b"more")
    exchange.answered(OK)
    assert not exchange.idle


def test_the_method_and_the_beginning_of_the_answer_are_known() -> None:
    exchange = Exchange()
    exchange.asked(POST[:-4])
    assert (exchange.method, exchange.begun) == (b"POST", False)
    exchange.answered(OK[:9])
    assert exchange.begun
