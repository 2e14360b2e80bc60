"""Fresh VMs, many of them: each comes up, runs its script and goes."""

from __future__ import annotations

import asyncio

import pytest

from mags.protocol import messages as m
from tests.kit.host_world import Caller

pytestmark = pytest.mark.vm

COUNT, AT_ONCE = 16, 8
SPEC = m.VmSpec(memory_mb=256)


async def test_fresh_vms_come_and_go(caller: Caller) -> None:
    left = iter(range(COUNT))

    async def one_after_the_other() -> None:
        for number in left:
            ended = await caller.whole(f"echo {number}", spec=SPEC)
            assert (ended.exit_code, ended.stdout) == (0, f"{number}\n".encode()), ended

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(one_after_the_other())
