"""`python -m bench [GROUP...] [--only PART] [--json]`: measure what the README promises."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Collection

from bench.table import Row, as_json, as_table
from tests.kit import sessions

GROUPS = {
    "core": "bench.core",
    "workspaces": "bench.workspaces",
    "persistent": "bench.persistent",
    "peers": "bench.peers",
}
DEFAULT = ("core", "workspaces", "persistent")
PARTS = {
    "core": ("pool", "exec", "output", "empty", "many"),
    "workspaces": ("starts", "forks", "elsewhere", "syncs", "jfs"),
    "persistent": ("sleep", "page", "ssh", "nights", "sleepers", "deaths", "edge"),
}
"""Of a group, each with the baseline beside it."""


async def _measure(group: str, parts: Collection[str]) -> list[Row]:
    module = importlib.import_module(GROUPS[group])
    rows: list[Row] = await (module.measure(parts) if parts else module.measure())
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("group", nargs="*", help=f"of {', '.join(GROUPS)}; default: {', '.join(DEFAULT)}")
    known = "; ".join(f"of {group}: {', '.join(parts)}" for group, parts in PARTS.items())
    parser.add_argument("--only", action="append", metavar="PART", help=known)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    wishes = parser.parse_args()
    unknown = [name for name in wishes.group if name not in GROUPS]
    if unknown:
        parser.error(f"no such group: {', '.join(unknown)} (there are {', '.join(GROUPS)})")
    groups, parts = list(wishes.group or DEFAULT), set(wishes.only or ())
    if parts:
        groups = [name for name in groups if parts.intersection(PARTS.get(name, ()))]
        strange = parts.difference(*(PARTS[name] for name in groups))
        if strange:
            parser.error(f"no such part: {', '.join(sorted(strange))} ({known})")
    load = os.getloadavg()[0]
    if load > 0.7:
        print(f"bench: the machine is busy (load {load:.1f}); the numbers are upper bounds", file=sys.stderr)
    end = sessions.begin(sessions.place(sessions.FOLDERS))
    missed = False
    for name in groups:
        rows = asyncio.run(_measure(name, parts))
        print(as_json(rows) if wishes.json else f"\n### {name}\n{as_table(rows)}", flush=True)
        missed |= any(one.ok is False for one in rows)
    end()
    if missed:
        print("bench: some goals were missed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
