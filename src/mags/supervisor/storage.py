"""Where the workspaces of a data directory lie: chosen at its first `mags up`, and the same ever after.

wished   `--s3`              told   MAGS_HOST_STORAGE_KIND
kept     what there is: SeaweedFS's directory, or what the host's storage engine has written down
"""

from __future__ import annotations

import json

from mags.supervisor.layout import Layout

SEAWEEDFS, LOCAL, OTHER = "seaweedfs", "local", "other"
WORDS = {SEAWEEDFS: "in SeaweedFS (--s3 seaweedfs)", LOCAL: "in its own directory (--s3 local)",
         OTHER: "in an S3 bucket of MAGS_HOST_STORAGE_*"}  # fmt: skip


class Changed(Exception):
    """The wish is another than what is kept; the sentence says what to do."""


def choose(wished: str, told: str | None, layout: Layout) -> str:
    """What `--s3` would have to say. Empty: what MAGS_HOST_STORAGE_* says. Changed."""
    kept = find(layout, told)
    if told == "off" and not wished:
        return ""
    wanted = wished or {None: "", "s3": OTHER}.get(told, told or "")
    if kept and wanted and wanted != kept:
        raise Changed(
            f"The workspaces of {layout.data} are {WORDS[kept]}; {WORDS.get(wanted, wanted)} none of them would be "
            "found. Nothing was changed. Leave the choice away to go on with them, or choose another --data-dir. (To "
            "move: `mags workspace export` here, `mags workspace import` there.)"
        )
    return SEAWEEDFS if kept == SEAWEEDFS else wished


def find(layout: Layout, told: str | None) -> str:
    """What is kept there; empty: nothing yet."""
    ours = (layout.seaweedfs / "mags.json").exists()
    try:
        known = json.loads(layout.volume.read_bytes())
        return LOCAL if known["storage"] == "file" else SEAWEEDFS if ours else OTHER
    except (ValueError, KeyError, TypeError):  # an earlier version said nothing
        return SEAWEEDFS if ours else OTHER if told == "s3" else LOCAL
    except FileNotFoundError:
        return SEAWEEDFS if ours else ""
