from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.protocol import ids


def test_new_ids_are_valid_and_differ() -> None:
    made = {ids.new_id() for _ in range(100)}
    assert len(made) == 100
    assert all(ids.is_id(one) for one in made)


@given(st.text(max_size=40))
def test_a_text_that_is_no_uuid_is_no_id(text: str) -> None:
    assert ids.is_id(text) is (len(text) == 36 and all(c in "0123456789abcdefABCDEF-" for c in text) and _parses(text))


def _parses(text: str) -> bool:
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12]


def test_labels_are_dns_labels() -> None:
    for _ in range(200):
        assert ids.SUBDOMAIN.fullmatch(ids.new_label())
        assert ids.new_label()[0].isalpha()


def test_made_up_names_are_job_names_and_workspace_names() -> None:
    for _ in range(50):
        name = ids.made_up_name()
        assert ids.JOB_NAME.fullmatch(name) and ids.WORKSPACE_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "-a", ".", "../x", "a/b", "a b", "a" * 64, "ä", "a\n", "a\0"])
def test_odd_workspace_names_are_refused(name: str) -> None:
    assert ids.WORKSPACE_NAME.fullmatch(name) is None


@pytest.mark.parametrize("name", ["a", "A.b-c_d", "0", "a" * 63])
def test_plain_workspace_names_are_taken(name: str) -> None:
    assert ids.WORKSPACE_NAME.fullmatch(name)
