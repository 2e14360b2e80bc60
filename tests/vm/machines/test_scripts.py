"""Scripts in real VMs, from the request to the last byte of output."""

from __future__ import annotations

import pytest

from mags.protocol import messages as m
from tests.kit.host_world import Caller, HostProgram

pytestmark = pytest.mark.vm


async def test_a_script_runs_in_a_vm_of_its_own(caller: Caller, host: HostProgram) -> None:
    vm_id, job_id = await caller.start("echo hello; echo oops >&2; hostname; pwd; exit 3")
    ended = await caller.ended(job_id)
    assert ended.stdout == b"hello\nmags-vm\n/root\n"
    assert ended.stderr == b"oops\n"
    assert ended.exit_code == 3 and ended.error is None
    event = await caller.told(m.JobEnded, job_id=job_id)
    assert event.exit_code == 3 and event.vm_id == vm_id
    await caller.told(m.VmChanged, vm_id=vm_id, state="gone")
