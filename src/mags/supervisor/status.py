"""The status line of `mags up`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mags.protocol.messages import Presence


def line(
    api_url: str, programs: Mapping[str, bool], hosts: Sequence[Presence], restarts: int, *, counts: bool = True
) -> str:
    """One line: where, what is down, how many VMs, and what is wrong. `programs`: name -> whether it runs.

    `counts`: with the numbers of VMs, which change all the time.
    """
    parts = [f"mags is up at {api_url}"]
    down = [name for name, up in programs.items() if not up]
    if down:
        parts = [f"mags at {api_url}: {', '.join(down)} down, starting again"]
    if hosts and counts:
        kinds = {
            "ready": sum(host.idle_vms for host in hosts),
            "busy": sum(host.busy_vms for host in hosts),
            "parked": sum(host.parked_vms for host in hosts),
            "asleep": sum(host.sleeping_vms for host in hosts),
        }
        shown = [f"{count} {word}" for word, count in kinds.items() if count or word in ("ready", "busy")]
        parts.append("VMs: " + ", ".join(shown))
    if hosts:
        parts.append("/".join(sorted({host.accelerator for host in hosts})).upper())
    for host in hosts:
        if not host.accepting:
            parts.append(f"takes no new VMs: {host.reason}")
        if host.storage not in ("", "ok"):
            parts.append(f"storage: {host.storage}")
    if restarts:
        parts.append(f"{restarts} restart{'s' if restarts > 1 else ''}")
    return " | ".join(parts)


def fit(text: str, columns: int) -> str:
    """For a terminal of that width."""
    return text if len(text) < columns else text[: max(0, columns - 2)] + "…"
