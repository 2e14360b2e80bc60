"""Users of VMs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.host.isolation import UidPool, UidsExhausted
from mags.host.isolation.uids import BLOCK, unmapped


def test_no_two_vms_share_a_user() -> None:
    pool = UidPool(1000, 3)
    assert {pool.take() for _ in range(3)} == {1000, 1001, 1002}
    with pytest.raises(UidsExhausted, match="1000"):
        pool.take()
    pool.release(1001)
    pool.release(1001)
    assert pool.take() == 1001


def test_an_adopted_user_is_taken() -> None:
    pool = UidPool(1000, 2)
    pool.adopt(1000)
    pool.adopt(5)
    assert pool.take() == 1001


def test_a_user_rests_as_long_as_others_are_free() -> None:
    pool = UidPool(1000, 3)
    first = pool.take()
    pool.release(first)
    assert [pool.take(), pool.take()] == [1001, 1002]


@given(st.integers(0, (1 << 24) - 1))
def test_an_installations_users_are_of_the_unused_range(number: int) -> None:
    uid = UidPool.of_installation(f"{number:06x}").take()
    assert 0x70000000 <= uid <= uid + BLOCK <= 0x80000000


@pytest.mark.parametrize(("first", "count"), [(0, 5), (1000, 0), ((1 << 31) - 1, 2)])
def test_an_impossible_range_is_refused(first: int, count: int) -> None:
    with pytest.raises(ValueError):
        UidPool(first, count)


def test_users_missing_in_a_container_are_noticed(tmp_path: Path) -> None:
    uid_map = tmp_path / "uid_map"
    uid_map.write_text("         0     100000      65536\n")
    assert unmapped(0x70000000, BLOCK, uid_map)
    assert not unmapped(0, BLOCK, uid_map)
