"""What an edge asks control about a name, and what it remembers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.client import Client

from mags.edge import directory
from mags.edge.directory import Directory
from mags.protocol import edge, messages


class Control:
    """Answers each question with `status`, once `go` is set. Stands where NATS does."""

    def __init__(self) -> None:
        self.status: Any = "starting"
        self.asked = 0
        self.go = asyncio.Event()
        self.go.set()

    async def subscribe(self, subject: str, cb: Any) -> None:
        self._tell = cb

    async def changed(self, *subdomains: str) -> None:
        await self._tell(SimpleNamespace(data=messages.encode(edge.Changed(subdomains=list(subdomains)))))

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> Any:
        self.asked += 1
        answer = messages.answer(edge.Resolved(status=self.status, subdomain="shop"))
        await self.go.wait()
        return SimpleNamespace(data=answer)


@pytest.fixture
async def control() -> Control:
    return Control()


async def listening(control: Control) -> Directory:
    made = Directory(cast(Client, control))
    await made.start()
    return made


async def test_all_requests_that_wait_for_a_vm_are_one_question_at_a_time(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "STARTING_PAUSE", 0.02)
    names = await listening(control)
    waiting = []
    for _ in range(50):
        waiting.append(asyncio.create_task(names.resolve("shop", patience=60)))
        await asyncio.sleep(0.001)  # each comes at a moment of its own
    rounds = control.asked
    while control.asked < rounds + 3:
        await asyncio.sleep(0.001)
    control.status = "ok"

    assert {answer.status for answer in await asyncio.gather(*waiting)} == {"ok"}
    assert control.asked <= rounds + 5
    assert rounds < 50 / 2
    await names.aclose()


async def test_one_that_has_no_patience_is_told_at_once(control: Control) -> None:
    names = await listening(control)

    assert (await names.resolve("shop")).status == "starting"


async def test_a_client_that_leaves_does_not_take_the_question_along(control: Control) -> None:
    names = await listening(control)
    control.status = "ok"
    control.go.clear()
    first, second = (asyncio.create_task(names.resolve("shop")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    control.go.set()

    assert (await second).status == "ok"
    assert control.asked == 1


async def test_an_answer_that_was_under_way_during_a_change_is_not_kept(control: Control) -> None:
    names = await listening(control)
    control.status = "ok"
    control.go.clear()
    before = asyncio.create_task(names.resolve("shop"))
    while not control.asked:
        await asyncio.sleep(0)
    control.status = "closed"

    await control.changed("shop")
    after = asyncio.create_task(names.resolve("shop"))
    await asyncio.sleep(0)
    control.go.set()

    assert ((await before).status, (await after).status) == ("ok", "closed")
    assert (await names.resolve("shop")).status == "closed"


async def test_a_known_name_is_not_asked_for_again_until_it_changes(control: Control) -> None:
    names = await listening(control)
    control.status = "ok"
    for _ in range(5):
        await names.resolve("shop")
    assert control.asked == 1

    await control.changed("shop")
    await names.resolve("shop")

    assert control.asked == 2


@pytest.mark.parametrize("status", ["unknown", "closed", "stopped"])
async def test_what_leads_nowhere_is_asked_for_again(control: Control, status: str) -> None:
    names = await listening(control)
    control.status = status
    assert (await names.resolve("shop")).status == status

    control.status = "ok"

    assert (await names.resolve("shop")).status == "ok"
