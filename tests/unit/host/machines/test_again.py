from __future__ import annotations

import asyncio

import pytest

from mags.host.machines import again
from mags.protocol.errors import Problem


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "LOOK_S", 0.001)


class Step:
    """Fails so often."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.calls, self._failures, self._error = 0, failures, error

    async def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error


AWAY = Problem("unavailable", "The store is away.")


async def test_it_is_tried_until_it_is_done(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(again, "FIRST_S", 0.001)
    step = Step(4, AWAY)
    await again.until_done("VM 1 can't sync", step, lambda: False)
    assert step.calls == 5
    assert caplog.messages == ["VM 1 can't sync yet: The store is away."]


async def test_it_is_tried_at_once_when_the_storage_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "FIRST_S", 3600.0)
    step, works = Step(1, AWAY), True
    trying = asyncio.create_task(again.until_done("VM 1 can't sync", step, lambda: works))
    await asyncio.sleep(0.02)
    works = False
    await asyncio.sleep(0.02)
    assert step.calls == 1, "that it worked all the time is no reason"
    works = True
    async with asyncio.timeout(60):
        await trying
    assert step.calls == 2


@pytest.mark.parametrize("code", ["conflict", "not_available"])
async def test_what_can_never_be_done_is_said(code: str) -> None:
    step = Step(1, Problem(code, "It is another's."))
    with pytest.raises(Problem, match="another's"):
        await again.until_done("VM 1 can't sync", step, lambda: True)
