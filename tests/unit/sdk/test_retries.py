from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mags.sdk import retries
from mags.sdk.transports import ConnectionBroke, Request

POST, GET = Request("POST", "/"), Request("GET", "/")
KEYED = Request("POST", "/", {"Idempotency-Key": "1"})
LOST, REFUSED = ConnectionBroke("gone", sent=True), ConnectionBroke("no", sent=False, refused=True)
SILENT = ConnectionBroke("silence", sent=True, timed_out=True)


def test_a_lost_connection_is_tried_again_where_that_can_do_no_harm() -> None:
    assert retries.delay_after_loss(GET, LOST, 1, 5) is not None
    assert retries.delay_after_loss(KEYED, LOST, 1, 5) is not None
    assert retries.delay_after_loss(POST, LOST, 1, 5) is None


def test_a_refused_connection_is_always_tried_again() -> None:
    assert retries.delay_after_loss(POST, REFUSED, 1, 5) is not None


def test_silence_is_not_tried_again() -> None:
    assert retries.delay_after_loss(GET, SILENT, 1, 5) is None


def test_only_answers_that_did_nothing_are_tried_again() -> None:
    tried = [status for status in range(400, 600) if retries.delay_after_answer(GET, status, None, 1, 5) is not None]
    assert tried == [429, 503]


def test_the_servers_wish_is_followed_unless_it_is_too_long() -> None:
    assert retries.delay_after_answer(POST, 503, "3", 1, 5) == 3
    assert retries.delay_after_answer(POST, 503, "3600", 1, 5) is None
    assert retries.delay_after_answer(POST, 503, "soon", 1, 5) is not None


def test_what_can_not_be_read_again_is_not_sent_again() -> None:
    piped = Request("PUT", "/", single=True)
    assert retries.delay_after_loss(piped, LOST, 1, 5) is None
    assert retries.delay_after_answer(piped, 503, None, 1, 5) is None
    assert retries.delay_after_loss(piped, REFUSED, 1, 5) is not None, "nothing of it was read"


def test_it_ends() -> None:
    assert retries.delay_after_answer(POST, 503, None, 5, 5) is None
    assert retries.delay_after_loss(GET, LOST, 5, 5) is None


@given(failures=st.integers(1, 60), chance=st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_a_bound(failures: int, chance: float) -> None:
    delay = retries.backoff(failures, chance)
    assert 0.075 <= delay <= 1.25 * retries.LONGEST_DELAY
    assert retries.backoff(failures + 1, chance) >= delay
