"""Of two that believe they own a workspace, the older one hears of it, though it has nothing to sync."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mags.host.attachments import Workspace
from mags.host.attachments import workspace as module
from mags.host.attachments.hearing import Hearing
from mags.host.jfs import Exports, Permit
from mags.host.storage.engine import Engine
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment, WorkspaceSynced


class Idle:
    """In place of the syncs of a VM that changes nothing."""

    def __init__(self) -> None:
        self.ended = False

    async def run(self, interval: float) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


@pytest.fixture
async def exports(tmp_path: Path) -> AsyncIterator[Exports]:
    opened = await Exports.open(tmp_path)
    yield opened
    await opened.close()


@pytest.mark.parametrize("event", ["taken over", "deleted"])
async def test_idle_owner_hears_that_it_is_none_any_more(
    engine: Engine, exports: Exports, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    monkeypatch.setattr(module, "OWNED_S", 0.02)
    name, syncs = new_id(), Idle()

    async def publish(_: WorkspaceSynced) -> None:
        raise AssertionError("there is nothing to be told")

    attached = await engine.workspaces.attach(Attachment(workspace_id=name, epoch=1, disk_gb=1), vm_id=new_id())
    hearing = Hearing()
    workspace = Workspace(attached, exports, publish, hearing, interval=600.0)
    workspace._syncer = syncs  # type: ignore[assignment]
    running = asyncio.create_task(workspace.run())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await asyncio.shield(running)
    assert await asyncio.to_thread(workspace._permit) is Permit.AT_ONCE
    if event == "deleted":
        await engine.workspaces.delete(name)
    else:
        await engine.workspaces.attach(Attachment(workspace_id=name, epoch=2, disk_gb=1), vm_id=new_id())
    with pytest.raises(Problem) as stale:
        async with asyncio.timeout(60):
            await running
    assert stale.value.code == "conflict" and syncs.ended
    assert not await asyncio.to_thread(workspace._permit)
    hearing.heard(hearing.clock(), 1000.0)
    assert not await asyncio.to_thread(workspace._permit)
