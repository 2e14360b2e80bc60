"""What a hypervisor that the host program has started may do, as the kernel tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mags.host.isolation import Cgroups
from mags.host.isolation.cgroups import OVERHEAD_MB
from mags.host.network.claims import ID_FILE
from mags.protocol import messages as m
from tests.kit.host_world import Caller, HostProgram

pytestmark = pytest.mark.vm

MEMORY_MB = 256
LIMITS = {
    1: {"memory": "memory.limit_in_bytes", "cpu": "cpu.cfs_quota_us", "pids": "pids.max"},
    2: {"memory": "memory.max", "cpu": "cpu.max", "pids": "pids.max"},
}
BOUNDS = {"memory": str((MEMORY_MB + OVERHEAD_MB) << 20), "cpu": "200000", "pids": "128"}


async def test_a_hypervisor_is_held_by_its_group_its_user_and_its_filter(host: HostProgram, caller: Caller) -> None:
    vm_id, _ = await caller.start(None, keep="stay", spec=m.VmSpec(memory_mb=MEMORY_MB))
    pid, record = host.hypervisor(vm_id), host.record(vm_id)
    assert record is not None and record["uid"] > 0
    groups = Cgroups.detect((host.data / "host" / ID_FILE).read_text().strip())
    group = groups.adopt(record["handle"])
    assert group is not None and group.pids() == {pid}

    where = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        where.update(dict.fromkeys(controllers.split(","), path))
    for controller, root in groups.roots.items():
        place = where["" if groups.version == 2 else controller]
        assert place.endswith(f"/mags-{groups.installation}/{record['handle']}")
        directory = root / f"mags-{groups.installation}" / record["handle"]
        assert (directory / LIMITS[groups.version][controller]).read_text().split()[0] == BOUNDS[controller]

    user = str(record["uid"])
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    for thread in threads:
        words = (line.partition(":") for line in (thread / "status").read_text().splitlines())
        status = {name: value.split() for name, _, value in words}
        assert status["Uid"] == status["Gid"] == [user] * 4 and set(status["Groups"]) <= {user}
        assert (status["Seccomp"], status["NoNewPrivs"], status["CapEff"]) == (["2"], ["1"], ["0" * 16])
    assert len(threads) > 1, "a thread for the vCPU"

    await caller.stop(vm_id)
    await host.forgets(vm_id)
    assert not any(directory.exists() for directory in group.directories)
