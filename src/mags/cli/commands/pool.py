"""Show the hosts and their VMs."""

from __future__ import annotations

import argparse

from mags.cli.command import Session, add_json
from mags.sdk.calls import jobs


def describe(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    pool = session.sender.send(jobs.pool_status())
    if arguments.json:
        session.console.json(pool)
        return 0
    session.console.record(
        {
            "ready": f"{pool['idle_vms']} (of {pool['min_pool_size']} to {pool['max_pool_size']})",
            "busy": pool["busy_vms"],
            "parked": pool["parked_vms"],
            "asleep": pool["sleeping_vms"],
        }
    )
    heads = ("HOST", "STATE", "READY", "BUSY", "PARKED", "ASLEEP", "VMS BY", "FREE MEMORY", "NOTE")
    rows = [
        (
            host.get("host_id"),
            host.get("state") or host.get("status"),
            host.get("idle_vms"),
            host.get("busy_vms"),
            host.get("parked_vms"),
            host.get("sleeping_vms"),
            host.get("accelerator"),
            f"{host['free_memory_mb']} MB" if "free_memory_mb" in host else None,
            host.get("reason") or "",
        )
        for host in pool["hosts"]
    ]
    session.console.table(heads, rows, nothing="No host. Start one with `mags up`.")
    return 0
