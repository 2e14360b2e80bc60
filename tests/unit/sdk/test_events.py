from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.sdk.errors import TransferFailed
from mags.sdk.events import LIMIT, EventDecoder, ServerEvent, record

TEXT = (
    b': alive\n\nid: 1:5,2:0\ndata: {"message":"a"}\n\n'
    b"id: 1:9\r\nevent: end\r\ndata: one\r\ndata:two\r\n\r\nretry: 5\nid: bad\0\n\n"
)


@given(st.lists(st.integers(0, len(TEXT)), max_size=30))
def test_events_come_out_however_the_bytes_are_cut(cuts: list[int]) -> None:
    decoder, found = EventDecoder(), []
    edges = [0, *sorted(cuts), len(TEXT)]
    for start, end in pairwise(edges):
        found += list(decoder.feed(TEXT[start:end]))
    assert found == [ServerEvent("message", '{"message":"a"}'), ServerEvent("end", "one\ntwo")]
    assert decoder.last_id == "1:9"


def test_only_a_whole_event_moves_the_place_to_go_on_from() -> None:
    decoder = EventDecoder()
    assert len(list(decoder.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n"))) == 1
    decoder.reconnected()
    assert decoder.last_id == "1"
    assert list(decoder.feed(b"id: 2\ndata: b\n\n")) == [ServerEvent("message", "b")]
    assert decoder.last_id == "2"


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(TransferFailed):
        list(EventDecoder().feed(b"x" * (LIMIT + 1)))


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_an_event_carries_is_an_object(text: str) -> None:
    assert record('{"a": 1}') == {"a": 1}
    with pytest.raises(TransferFailed):
        record(text)
