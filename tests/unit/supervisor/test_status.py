from __future__ import annotations

from typing import Any

import pytest

from mags.protocol.messages import Presence
from mags.supervisor.status import fit, line

URL = "http://127.0.0.1:4280"


def host(**facts: Any) -> Presence:
    given: dict[str, Any] = {
        "host_id": "h", "machine_id": "m", "version": "1", "boot": "b", "accelerator": "tcg", "cpus": 2,
        "memory_mb": 1000, "free_memory_mb": 500, "free_disk_gb": 10.0, "load": 0.1, "idle_vms": 4, "busy_vms": 1,
    }  # fmt: skip
    return Presence(**(given | facts))


@pytest.mark.parametrize(("programs", "hosts", "restarts", "text"), [
    ({"control": True}, [], 0, "mags is up at http://127.0.0.1:4280"),
    ({"control": True}, [host()], 0, "mags is up at http://127.0.0.1:4280 | VMs: 4 ready, 1 busy | TCG"),
    ({"control": True}, [host(sleeping_vms=2), host(parked_vms=3, accelerator="kvm")], 1,
     "mags is up at http://127.0.0.1:4280 | VMs: 8 ready, 2 busy, 3 parked, 2 asleep | KVM/TCG | 1 restart"),
    ({"control": False, "host": False}, [], 2,
     "mags at http://127.0.0.1:4280: control, host down, starting again | 2 restarts"),
    ({}, [host(accepting=False, reason="The disk is full.", storage="S3 does not answer.")], 0,
     "mags is up at http://127.0.0.1:4280 | VMs: 4 ready, 1 busy | TCG | takes no new VMs: The disk is full. | "
     "storage: S3 does not answer."),
])  # fmt: skip
def test_the_line_says_what_is(programs: dict[str, bool], hosts: list[Presence], restarts: int, text: str) -> None:
    assert line(URL, programs, hosts, restarts) == text


def test_a_log_is_spared_the_numbers() -> None:
    assert line(URL, {"control": True}, [host()], 0, counts=False) == "mags is up at http://127.0.0.1:4280 | TCG"


def test_a_line_fits_its_terminal() -> None:
    assert fit("abc", 80) == "abc"
    assert fit("x" * 100, 80) == "x" * 78 + "…"
    assert len(fit("x" * 100, 1)) == 1
