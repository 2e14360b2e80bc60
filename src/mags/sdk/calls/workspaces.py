"""Workspaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mags.sdk.calls.call import Call, path_of
from mags.sdk.transports import Body

if TYPE_CHECKING:
    from mags.sdk import types

TAR = "application/x-tar"


def list_workspaces(*, page: int = 1, page_size: int | None = None) -> Call[types.Workspaces]:
    """Workspaces, the last used first. Without `page_size` all of them, 10,000 at most."""
    return Call("GET", "/mags-workspaces", query={"page": page, "page_size": page_size})


def get_workspace(workspace_id: str) -> Call[types.Workspace]:
    """Everything about a workspace."""
    return Call("GET", path_of("mags-workspaces", workspace_id))


def delete_workspace(workspace_id: str) -> Call[types.Done]:
    """Delete a workspace with all its files. Conflict while a VM uses it."""
    return Call("DELETE", path_of("mags-workspaces", workspace_id), timeout=120)


def resize_workspace(workspace_id: str, disk_gb: int) -> Call[types.Workspace]:
    """Grow a workspace's disk, in place. It can't shrink."""
    return Call("POST", path_of("mags-workspaces", workspace_id, "/resize"), json={"disk_gb": disk_gb}, timeout=120)


def export_workspace(workspace_id: str) -> Call[bytes]:
    """All of a workspace, as an archive for `import_workspace`."""
    return Call("GET", path_of("mags-workspaces", workspace_id, "/export"), accept=TAR, timeout=300)


def import_workspace(
    workspace_id: str, body: Body, *, disk_gb: int | None = None, single: bool = False
) -> Call[types.Workspace]:
    """A new workspace from such an archive; `single`: `body` can be read only once."""
    path, query = path_of("mags-workspaces", workspace_id, "/import"), {"disk_gb": disk_gb}
    return Call("POST", path, query=query, body=body, single=single, creates=True, content_type=TAR, timeout=600)
