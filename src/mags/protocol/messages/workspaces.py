"""Workspaces: given to a VM, synced, carried as archives, found on the volume, removed."""

from __future__ import annotations

from typing import Literal

from mags.protocol.messages.codec import Value


class Attachment(Value):
    """A synced workspace, given to a VM under an epoch.

    `generation` is the number of the image to start from (0: an empty disk). `base` names another workspace (by id)
    whose image `base_generation` is the start of a fork, or of a throw-away copy when `discard` is set.
    """

    workspace_id: str
    epoch: int = 0
    generation: int = 0
    disk_gb: int = 2
    base: str | None = None
    base_generation: int = 0
    discard: bool = False


class Synced(Value):
    synced_at_ms: int
    bytes: int = 0
    duration_ms: int = 0
    freeze_ms: int = 0
    generation: int = 0


class Archive(Value):
    """Open a session for the files of a workspace as a tar file. No VM is needed, none is disturbed.

    `export`: the host sends it (stream 1) as of `generation`, then SessionEnd. `import`: the client sends it (0),
    then Eof; a new workspace of that id is made, of generation 1. Its SessionEnd has `details` {"disk_gb", "image",
    "size_bytes"}; a bad archive ends with the code `invalid`, and nothing is left of it.
    """

    session_id: str
    direction: Literal["export", "import"]
    workspace_id: str
    generation: int = 0
    owner: str = ""
    name: str = ""
    limit: int = 100 << 30
    """Bytes of everything that an import may bring."""
    window: int = 1 << 20


class Stored(Value):
    """A page of them, by id."""

    after: str = ""
    """The last id of the page before."""
    limit: int = 500


class StoredWorkspace(Value):
    """What the volume itself says of a workspace."""

    id: str
    owner: str
    """The id of a user, perhaps of another installation."""
    name: str
    disk_gb: int
    generation: int
    epoch: int
    size_bytes: int = 0
    synced_ms: int = 0
    image: str = ""


class StoredList(Value):
    """Fewer than the limit: there are no more."""

    workspaces: list[StoredWorkspace] = []


class Drop(Value):
    """Repeatable. Forks of the workspace are not touched."""

    workspace_id: str
