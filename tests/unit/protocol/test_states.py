from __future__ import annotations

from mags.protocol.states import FINAL_VM_STATES, VM_TRANSITIONS, VmState, may


def test_every_state_has_its_row() -> None:
    assert set(VM_TRANSITIONS) == set(VmState)


def test_final_states_lead_nowhere_and_all_others_can_fail() -> None:
    for state, after in VM_TRANSITIONS.items():
        assert bool(after) is (state not in FINAL_VM_STATES)
        assert state in FINAL_VM_STATES or VmState.FAILED in after


def test_every_state_but_the_first_can_be_reached() -> None:
    reached = {VmState.RESTORING}
    while more := {after for state in reached for after in VM_TRANSITIONS[state]} - reached:
        reached |= more
    assert reached == set(VmState)


def test_staying_is_always_allowed_and_coming_back_never() -> None:
    assert all(may(state, state) for state in VmState)
    assert not may(VmState.GONE, VmState.RUNNING)
    assert may(VmState.RUNNING, VmState.SLEEPING) and may(VmState.SLEEPING, VmState.RUNNING)
