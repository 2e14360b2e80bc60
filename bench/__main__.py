"""`python -m bench [GROUP...] [--only PART] [--json]`: measure what the README promises."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys

from bench.table import Row, as_json, as_table
from tests.kit import installation, sessions

GROUPS = {
    "core": "bench.core",
    "workspaces": "bench.workspaces",
    "persistent": "bench.persistent",
    "peers": "bench.peers",
}
DEFAULT = ("core", "workspaces", "persistent")
PARTS = ("pool", "exec", "output", "empty", "many")
"""Of `core`, each with the baseline beside it."""


async def _measure(group: str, parts: list[str] | None) -> list[Row]:
    module = importlib.import_module(GROUPS[group])
    rows: list[Row] = await (module.measure(parts) if parts and group == "core" else module.measure())
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("group", nargs="*", help=f"of {', '.join(GROUPS)}; default: {', '.join(DEFAULT)}")
    parser.add_argument("--only", action="append", metavar="PART", choices=PARTS, help=f"of core: {', '.join(PARTS)}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    wishes = parser.parse_args()
    unknown = [name for name in wishes.group if name not in GROUPS]
    if unknown:
        parser.error(f"no such group: {', '.join(unknown)} (there are {', '.join(GROUPS)})")
    load = os.getloadavg()[0]
    if load > 0.7:
        print(f"bench: the machine is busy (load {load:.1f}); the numbers are upper bounds", file=sys.stderr)
    end = sessions.begin(sessions.place(installation.KIND))
    missed = False
    for name in wishes.group or DEFAULT:
        rows = asyncio.run(_measure(name, wishes.only))
        print(as_json(rows) if wishes.json else f"\n### {name}\n{as_table(rows)}", flush=True)
        missed |= any(one.ok is False for one in rows)
    end()
    if missed:
        print("bench: some goals were missed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
