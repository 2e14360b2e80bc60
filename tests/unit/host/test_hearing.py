"""How long a host may believe that nothing was taken from it."""

from __future__ import annotations

from mags.host.attachments.hearing import Hearing


def test_it_holds_for_a_part_of_what_control_waits() -> None:
    now = 1000.0
    hearing = Hearing(lambda: now)
    assert not hearing.holds
    hearing.heard(now, 30.0)
    now += 22.4
    assert hearing.holds
    hearing.heard(now - 20, 30.0)
    hearing.heard(now - 22, 30.0)  # an answer that was overtaken
    now += 2.4
    assert hearing.holds
    now += 0.2
    assert not hearing.holds
    hearing.heard(now, 6.0)
    assert hearing.holds
