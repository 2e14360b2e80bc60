from __future__ import annotations

import pytest

from mags.host.machines.wishes import Denied, Ignored, Queued, Wish, judge
from mags.protocol.states import FINAL_VM_STATES, VmState

S, W = VmState, Wish
ENDED = [S.STOPPING, S.GONE, S.FAILED]
LIVING = [state for state in S if state not in ENDED]


@pytest.mark.parametrize("state", LIVING)
@pytest.mark.parametrize("wish", [W.RUN, W.USE, W.STOP, W.SYNC, W.RESIZE])
def test_a_living_vm_takes_work_and_its_end(state: VmState, wish: Wish) -> None:
    assert isinstance(judge(state, wish), Queued)


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("wish", [W.RUN, W.USE, W.SLEEP, W.WAKE, W.SYNC, W.RESIZE])
def test_an_ended_vm_takes_nothing(state: VmState, wish: Wish) -> None:
    verdict = judge(state, wish)
    assert isinstance(verdict, Denied) and verdict.problem.code == "gone"


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("wish", [W.STOP, W.CANCEL])
def test_what_is_ended_is_not_ended_again(state: VmState, wish: Wish) -> None:
    assert isinstance(judge(state, wish), Ignored)


def test_a_failed_vm_says_why() -> None:
    verdict = judge(S.FAILED, W.RUN, reason="its guest broke the protocol")
    assert isinstance(verdict, Denied) and "its guest broke the protocol" in verdict.problem.message


@pytest.mark.parametrize("state", [S.READY, S.PARKED])
def test_there_is_nothing_to_cancel_without_a_script(state: VmState) -> None:
    assert isinstance(judge(state, W.CANCEL), Ignored)


def test_sleep_and_wake_are_ignored_where_it_is_so_already() -> None:
    assert isinstance(judge(S.SLEEPING, W.SLEEP), Ignored)
    assert isinstance(judge(S.SLEEPING, W.WAKE), Queued)
    assert isinstance(judge(S.RUNNING, W.WAKE), Ignored)
    assert isinstance(judge(S.RUNNING, W.SLEEP), Queued)


def test_a_vm_that_comes_up_can_not_sleep_yet() -> None:
    verdict = judge(S.RESTORING, W.SLEEP)
    assert isinstance(verdict, Denied) and verdict.problem.code == "conflict"


@pytest.mark.parametrize("state", list(S))
@pytest.mark.parametrize("wish", list(W))
def test_every_wish_has_a_verdict_in_every_state(state: VmState, wish: Wish) -> None:
    verdict = judge(state, wish)
    assert verdict.queued is isinstance(verdict, Queued)
    if state in FINAL_VM_STATES:
        assert not isinstance(verdict, Queued)
