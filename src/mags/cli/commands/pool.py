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
            host["host_id"],
            host["status"],
            host["idle_vms"],
            host["busy_vms"],
            host["parked_vms"],
            host["sleeping_vms"],
            host["accelerator"],
            f"{host['free_memory_mb']} MB",
            " ".join(filter(None, (host["reason"], "" if host["storage"] == "ok" else host["storage"]))),
        )
        for host in pool["hosts"]
    ]
    session.console.table(heads, rows, nothing="No host. Start one with `mags up`.")
    return 0
