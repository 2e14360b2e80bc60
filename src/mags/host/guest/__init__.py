"""The host's client of the guest agent."""

from __future__ import annotations

from mags.host.guest.channel import Channel, Configured
from mags.host.guest.errors import ChannelClosed, GuestError
from mags.host.guest.files import FileReader
from mags.host.guest.process import Process
from mags.protocol.guest import (
    Builtin,
    Configure,
    Entry,
    Exec,
    Exit,
    Hello,
    Jfs,
    Network,
    Offsets,
    Output,
    Part,
    ProcessInfo,
    Stats,
    Terminal,
)

__all__ = [
    "Builtin",
    "Channel",
    "ChannelClosed",
    "Configure",
    "Configured",
    "Entry",
    "Exec",
    "Exit",
    "FileReader",
    "GuestError",
    "Hello",
    "Jfs",
    "Network",
    "Offsets",
    "Output",
    "Part",
    "Process",
    "ProcessInfo",
    "Stats",
    "Terminal",
]
