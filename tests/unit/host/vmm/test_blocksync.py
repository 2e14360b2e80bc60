"""The sync of a disk against a QEMU that a guest has taken over: whatever it answers, an error of the driver's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu import blocksync
from mags.host.vmm.qemu.blocksync import BITMAP, JOB, BlockSync
from mags.host.vmm.qemu.machine import WORK_NODE
from tests.kit.monitor import Qemu, monitored

IMAGE = {"virtual-size": 1 << 30}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[BlockSync, Qemu]]:
    qmp, qemu = monitored()
    vm: Any = SimpleNamespace(qmp=qmp, directory=tmp_path)
    yield BlockSync(vm), qemu
    await qmp.aclose()
    qemu.socket.close()


def node(*bitmaps: object, image: object = IMAGE) -> list[dict[str, object]]:
    return [{"node-name": WORK_NODE, "image": image, "dirty-bitmaps": list(bitmaps)}]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        [{}],
        [{"node-name": WORK_NODE}],
        node(image={"virtual-size": -1}),
        node(image={"virtual-size": 1 << 62}),
        node({"name": f"{BITMAP}1", "count": "many"}),
        node({"name": f"{BITMAP}one", "count": 1}),
        node(),
        [],
    ],
)
async def test_nonsense_of_the_bitmaps_is_an_error(pair: tuple[BlockSync, Qemu], answer: object) -> None:
    sync, qemu = pair
    asking = asyncio.ensure_future(sync.dirty())
    await qemu.answer("query-named-block-nodes", answer)
    with pytest.raises(VmmError):
        await asking


async def test_a_bitmap_that_is_lost_is_an_error(pair: tuple[BlockSync, Qemu]) -> None:
    sync, qemu = pair
    sync._numbers = [4]
    asking = asyncio.ensure_future(sync.dirty())
    await qemu.answer("query-named-block-nodes", node({"name": f"{BITMAP}3", "count": 1}, {"count": 2}))
    with pytest.raises(VmmError, match="follows the changes"):
        await asking


@pytest.mark.parametrize("answer", [None, [{"id": JOB}], {"id": JOB, "status": "running"}])
async def test_nonsense_of_the_job_is_an_error(pair: tuple[BlockSync, Qemu], answer: object) -> None:
    sync, qemu = pair
    asking = asyncio.ensure_future(sync.track())
    await qemu.answer("query-jobs", answer)
    with pytest.raises(VmmError):
        await asking


async def test_a_job_that_does_not_end_is_an_error(
    pair: tuple[BlockSync, Qemu], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocksync, "JOB_TIMEOUT", 0.01)
    sync, qemu = pair
    tracking = asyncio.ensure_future(sync.track())
    running = [{"id": JOB, "status": "running", "type": "backup", "total-progress": 5}]
    await qemu.answer("query-jobs", running)
    await qemu.answer("job-cancel", {})
    await qemu.answer("query-jobs", running)
    with pytest.raises(VmmError, match=r"within 0\.01 s"):
        await tracking
