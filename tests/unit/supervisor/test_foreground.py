"""A start that is broken off."""

from __future__ import annotations

import asyncio

import pytest

from mags.supervisor import foreground


@pytest.mark.parametrize("deaf", [False, True], ids=["cancelled", "too-late"])
async def test_a_start_that_a_signal_meets_is_undone_or_known_to_have_come_to_its_end(deaf: bool) -> None:
    """Up to Python 3.11 asyncio.wait_for can lose a cancellation that meets the answer."""
    ended = asyncio.Event()

    async def start() -> None:
        ended.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not deaf:
                raise

    assert await foreground._unless(ended, start()) is deaf
