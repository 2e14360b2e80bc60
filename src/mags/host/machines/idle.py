"""When a VM is idle, and what may fall asleep. Pure: what was seen goes in, a verdict comes out.

| seen since the last look                               | active                                     |
|--------------------------------------------------------|--------------------------------------------|
| a command, session, file or connection under way       | yes                                        |
| the edge said that a connection to its URL is open     | yes (`Machine.touch`)                      |
| network traffic                                        | above TRAFFIC bytes a second               |
| a script that runs, of a VM that ends with its scripts | yes                                        |
| a script that runs, of a persistent VM                 | if it wrote, or the guest computes: above  |
|                                                        | CPU of a processor                         |
| a script that has ended, and control does not know yet | yes                                        |
| anything else in the guest                             | no                                         |

The script of a persistent VM may be a server that never ends (`mags run -p 'python3 -m http.server'`): that it runs
says nothing, that it works does.
"""

from __future__ import annotations

from dataclasses import dataclass

from mags.host.machines.record import Record
from mags.protocol.errors import Problem

TRAFFIC = 1024.0
"""Bytes a second, both ways. Keep-alives and ARP are below."""
CPU = 0.05
"""Of one processor. A guest that only waits needs less than half a percent."""
TICKS_MS = 20
"""The guest counts its processor's time in steps of 10 ms, and to be asked costs some."""
LOOKS = 8
SHORTEST_S, LONGEST_S = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a VM in the last `seconds`.

    inside: who used it or waited for it, at the end. scripts, ending: scripts that run, and that have ended but are
    not told. output: bytes that scripts wrote. cpu_ms: the guest's, of all processors. traffic: bytes both ways.
    """

    seconds: float
    inside: int = 0
    scripts: int = 0
    ending: int = 0
    output: int = 0
    cpu_ms: int = 0
    traffic: int = 0


def active(look: Look, *, stays: bool) -> bool:
    """Whether anybody had something of the VM. `stays`: it is persistent."""
    if look.inside or look.ending or look.traffic > TRAFFIC * look.seconds:
        return True
    if not look.scripts:
        return False
    return not stays or look.output > 0 or look.cpu_ms > CPU * 1000 * look.seconds + TICKS_MS


def interval(timeout_s: float) -> float:
    """Seconds between two looks at a VM that may sleep after `timeout_s` without activity."""
    return min(max(timeout_s / LOOKS, SHORTEST_S), LONGEST_S)


def keeps_awake(record: Record, *, force: bool = False) -> Problem | None:
    """Why the VM never sleeps, if so. `force`: a wish is no reason."""
    if record.keep == "job":
        return Problem("conflict", "The VM ends with its script, so it does not sleep.")
    if record.no_sleep and not force:
        return Problem("conflict", "The VM is set never to sleep: allow it first (`mags set --sleep`).")
    return None
