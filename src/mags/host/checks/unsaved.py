"""What VMs have left that could not be saved to their workspaces (`machines.farewell`)."""

from __future__ import annotations

import json
from pathlib import Path

from mags.host.checks.check import Check

NAME = "unsaved files"


def unsaved(state: Path) -> list[Check]:
    """One for each VM; none where everything is saved. state: the host program's directory."""
    found = []
    for file in sorted((state / "records").glob("*.json")):
        try:
            record = json.loads(file.read_bytes())
            if not record.get("unsaved"):
                continue
            vm_id, place = record["vm_id"], state / "vms" / record["handle"]
            workspace = record.get("name") or record["attachment"]["workspace_id"]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # it has just gone, or the host program says what is wrong with it
        detail = f"the last changes of VM {vm_id} to workspace {workspace} are only in {place}"
        advice = "They are saved when the storage works again (`mags pool`). Remove the directory to give them up."
        found.append(Check(NAME, None, detail, advice))
    for place in sorted((state / "unsaved").glob("*")):
        detail = f"{place} holds changes that came too late for workspace {place.name.partition('.')[0]}"
        found.append(Check(NAME, None, detail, "Look at its disk image if they are missed; remove it when not."))
    return found
