"""Placement, as a pure decision."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mags.control.placement import Candidate, Need, choose

IMAGES = ("alpine", "debian", "own")

candidates = st.builds(
    Candidate,
    host_id=st.text("abcdef", min_size=1, max_size=3),
    live=st.booleans(),
    accepting=st.booleans(),
    memory_mb=st.integers(0, 64_000),
    reserved_mb=st.integers(0, 64_000),
    load=st.floats(0, 10),
    images=st.lists(st.sampled_from(IMAGES), max_size=3),
    storage=st.booleans(),
)
needs = st.builds(Need, memory_mb=st.integers(128, 8192), image=st.sampled_from(IMAGES), storage=st.booleans())


def test_without_hosts_waiting_does_not_help() -> None:
    choice = choose([], Need())
    assert choice.host_id is None and choice.hopeless


def test_the_reason_of_hosts_that_take_nothing_is_given() -> None:
    choice = choose([Candidate(host_id="a", accepting=False, reason="The disk is full.")], Need())
    assert (choice.host_id, choice.reason, choice.hopeless) == (None, "The disk is full.", True)


def test_a_silent_host_is_waited_for() -> None:
    choice = choose([Candidate(host_id="a", live=False)], Need())
    assert choice.host_id is None and not choice.hopeless


def test_the_least_reserved_host_wins() -> None:
    small = Candidate(host_id="a", memory_mb=1000, reserved_mb=600)
    large = Candidate(host_id="b", memory_mb=10_000, reserved_mb=1000)
    assert choose([small, large], Need()).host_id == "b"


def test_a_host_that_has_the_image_goes_first_but_is_not_required() -> None:
    has = Candidate(host_id="b", images=("own",), memory_mb=1000, reserved_mb=900)
    lacks = Candidate(host_id="a", memory_mb=1000)
    assert choose([has, lacks], Need(image="own")).host_id == "b"
    assert choose([lacks], Need(image="own")).host_id == "a"


def test_a_synced_workspace_needs_storage() -> None:
    plain, storing = Candidate(host_id="a"), Candidate(host_id="b", storage=True)
    assert choose([plain, storing], Need(storage=True)).host_id == "b"
    assert choose([plain], Need(storage=True)).host_id is None


def test_a_host_that_has_just_refused_is_left_out() -> None:
    need = Need(exclude=frozenset({"a"}))
    assert choose([Candidate(host_id="a"), Candidate(host_id="b")], need).host_id == "b"
    assert choose([Candidate(host_id="a")], need) == choose([Candidate(host_id="a")], need)
    assert not choose([Candidate(host_id="a")], need).hopeless


@given(st.lists(candidates, max_size=6), needs)
def test_what_is_chosen_can_take_it_and_the_order_does_not_matter(known: list[Candidate], need: Need) -> None:
    choice = choose(known, need)
    assert choose(known[::-1], need).host_id == choice.host_id
    if choice.host_id is None:
        assert choice.reason
    else:
        assert any(
            host.host_id == choice.host_id and host.live and host.accepting and (host.storage or not need.storage)
            for host in known
        )
