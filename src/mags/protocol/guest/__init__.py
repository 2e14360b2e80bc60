"""The protocol between a host and the agent in its guests: pure values, no I/O. See docs/protocol.md."""

from __future__ import annotations

from mags.protocol.guest.answers import (
    RESULT,
    STDERR,
    STDOUT,
    Entry,
    Exit,
    Hello,
    Offsets,
    Output,
    PartResult,
    ProcessInfo,
    Stats,
)
from mags.protocol.guest.frames import Decoder, Frame, FrameType, ProtocolError
from mags.protocol.guest.wishes import Builtin, Configure, Exec, Jfs, Network, Part, Terminal

__all__ = [
    "RESULT",
    "STDERR",
    "STDOUT",
    "Builtin",
    "Configure",
    "Decoder",
    "Entry",
    "Exec",
    "Exit",
    "Frame",
    "FrameType",
    "Hello",
    "Jfs",
    "Network",
    "Offsets",
    "Output",
    "Part",
    "PartResult",
    "ProcessInfo",
    "ProtocolError",
    "Stats",
    "Terminal",
]
