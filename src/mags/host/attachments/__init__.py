"""Workspaces in the hands of machines: storage, /jfs and a VM's disk put together.

attachments  Attachments: one per host program; attaches, drops, says how the storage is
workspace    Workspace: one per VM that has a synced workspace
"""

from mags.host.attachments.attachments import Attachments
from mags.host.attachments.workspace import GUEST_JFS_PORT, Workspace

__all__ = ["GUEST_JFS_PORT", "Attachments", "Workspace"]
