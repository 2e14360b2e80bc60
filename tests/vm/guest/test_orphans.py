"""Processes whose parents have gone are the agent's, as they are any init's."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.vms import TIMEOUT, Running

pytestmark = pytest.mark.vm

ORPHANS = 30
RAISE = f"""mkfifo /tmp/go; touch /tmp/parents
for n in $(seq {ORPHANS}); do
    (sh -c 'read go < /tmp/go; cut -d " " -f 4 /proc/$$/stat >> /tmp/parents; exit 3' &)
done > /dev/null 2>&1"""
END = f"""until [ $(wc -l < /tmp/parents) = {ORPHANS} ]; do : > /tmp/go; sleep 0.1; done"""
STATES = "cat /proc/[0-9]*/stat 2>/dev/null | awk '{ sub(/^.*[)] /, \"\"); print $1, $2 }'"
"""State and parent of every process."""


async def states(running: Running) -> list[tuple[str, str]]:
    ended, text = await running.run(STATES)
    assert ended.code == 0, text
    return [(state, parent) for state, parent in (line.split() for line in text.splitlines())]


async def test_orphans_are_reaped_and_nothing_is_left_of_them(running: Running) -> None:
    def of_the_agent(found: list[tuple[str, str]]) -> int:
        return sum(parent == "1" for _, parent in found)

    before = await states(running)
    assert (await running.run(RAISE))[0].code == 0
    assert of_the_agent(await states(running)) == of_the_agent(before) + ORPHANS
    assert (await running.run(END))[0].code == 0
    async with asyncio.timeout(TIMEOUT):
        while of_the_agent(found := await states(running)) != of_the_agent(before):
            await asyncio.sleep(0.1)
    assert not any(state == "Z" for state, _ in found)
    assert (await running.run("cat /tmp/parents"))[1] == "1\n" * ORPHANS
