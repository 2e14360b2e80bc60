"""A VM with a workspace that an earlier host program left asleep."""

from __future__ import annotations

from pathlib import Path

import pytest

from mags.host.storage.layout import lease_name
from mags.protocol import messages as m
from tests.vm.storage.station import station

pytestmark = pytest.mark.vm


async def test_it_wakes_with_its_workspace_and_gives_the_lease_back(place: Path, image_cache: Path) -> None:
    async with station(place, image_cache, s3=False) as at:
        vm_id = await at.start("echo kept > /root/f")
        lease = at.image(1).with_name(lease_name(vm_id))
        for wake in (True, False):
            await at.caller.ask("sleep", m.VmRequest(vm_id=vm_id), m.Done)
            at.host.kill()
            at.host.start()
            await at.caller.ready()
            await at.storage_says("ok")
            assert lease.exists()
            if wake:
                assert await at.run(vm_id, "cat /root/f") == "kept\n"
        await at.caller.stop(vm_id)  # while it sleeps
        assert not lease.exists()
        again = await at.start()
        assert await at.run(again, "cat /root/f") == "kept\n"
