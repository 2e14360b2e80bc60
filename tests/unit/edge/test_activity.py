"""What hosts are told of open connections."""

from __future__ import annotations

import asyncio

from mags.edge.activity import Activity
from mags.protocol import edge, messages


class Published:
    def __init__(self) -> None:
        self.messages: list[tuple[str, edge.Activity]] = []

    async def publish(self, subject: str, payload: bytes) -> None:
        self.messages.append((subject, messages.decode(payload, edge.Activity)))


async def test_open_connections_are_told_until_they_close() -> None:
    published = Published()
    activity = Activity(published, "e")
    telling = asyncio.create_task(activity.run(0.001))
    activity.opened("h1", "v1")
    activity.opened("h1", "v1")
    await asyncio.sleep(0.02)
    activity.closed("h1", "v1")
    assert ("mags.host.h1.activity.v1", edge.Activity(vm_id="v1", connections=2, edge="e")) in published.messages
    await asyncio.sleep(0.02)
    assert published.messages[-1][1].connections == 1

    activity.closed("h1", "v1")
    await asyncio.sleep(0.02)
    before = len(published.messages)
    await asyncio.sleep(0.02)
    assert len(published.messages) == before

    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
