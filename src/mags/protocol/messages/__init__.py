"""What travels over NATS, as values (msgspec structs, encoded as MessagePack).

Requests to a host are answered with `Answer`: either the verb's own result or a problem. Unknown fields are ignored
and new fields have defaults, so that programs of neighbouring versions understand each other.

| verb      | request        | result         | meaning                                                         |
|-----------|----------------|----------------|-----------------------------------------------------------------|
| start     | Start          | Started        | take a VM (pool, clone, parked), give it its script             |
| run       | Run            | Started        | run another script in a VM that is up (or asleep: it wakes)     |
| cancel    | Cancel         | Done           | end one script (its process group), not the VM                  |
| stop      | Stop           | Done           | sync, then end the VM                                           |
| exec      | Exec           | ExecResult     | one command, its whole output in the answer; wakes              |
| open      | Open           | Opened         | a streaming session (exec, sftp, connect, read, write); wakes   |
| files     | Files          | FilesResult    | list, stat, remove, make a directory                            |
| sync      | VmRequest      | Synced         | sync now; answered when durable                                 |
| sleep     | VmRequest      | Done           | sync, save, free the memory                                     |
| wake      | VmRequest      | Done           |                                                                 |
| adjust    | Adjust         | Done           | idle time-out, no_sleep, startup command                        |
| resize    | Resize         | Done           | grow the disk                                                   |
| dial      | Dial           | Dialed         | where to connect for a port of the VM; wakes                    |
| list      | Empty          | VmList         | every VM of the host, for reconciliation                        |
| warm      | Warm           | Done           | build the template now                                          |
| archive   | Archive        | Opened         | a session that carries a workspace as a tar file, out or in     |
| stored    | Stored         | StoredList     | the workspaces that are on the volume, whoever made them        |
| drop      | Drop           | Done           | remove a deleted workspace's data from the object store         |
"""

from __future__ import annotations

from mags.protocol.messages.codec import (
    Answer,
    Value,
    answer,
    decode,
    encode,
    open_answer,
    refusal,
)
from mags.protocol.messages.frames import (
    Alive,
    Credit,
    Data,
    Eof,
    Frame,
    Hangup,
    SessionEnd,
    Signal,
    WindowSize,
    decode_frame,
)
from mags.protocol.messages.output import (
    Output,
    OutputEnd,
    OutputMessage,
    decode_output,
)
from mags.protocol.messages.reports import (
    Event,
    Heard,
    JobEnded,
    Presence,
    VmChanged,
    WorkspaceSynced,
    decode_event,
)
from mags.protocol.messages.vms import (
    Adjust,
    Cancel,
    Dial,
    Dialed,
    Done,
    Empty,
    Exec,
    ExecResult,
    FileEntry,
    FileReference,
    Files,
    FilesResult,
    Keep,
    Open,
    Opened,
    Pty,
    Resize,
    Run,
    Script,
    Start,
    Started,
    Stop,
    VmList,
    VmReport,
    VmRequest,
    VmSpec,
    Warm,
)
from mags.protocol.messages.workspaces import (
    Archive,
    Attachment,
    Drop,
    Stored,
    StoredList,
    StoredWorkspace,
    Synced,
)

__all__ = [
    "Adjust",
    "Alive",
    "Answer",
    "Archive",
    "Attachment",
    "Cancel",
    "Credit",
    "Data",
    "Dial",
    "Dialed",
    "Done",
    "Drop",
    "Empty",
    "Eof",
    "Event",
    "Exec",
    "ExecResult",
    "FileEntry",
    "FileReference",
    "Files",
    "FilesResult",
    "Frame",
    "Hangup",
    "Heard",
    "JobEnded",
    "Keep",
    "Open",
    "Opened",
    "Output",
    "OutputEnd",
    "OutputMessage",
    "Presence",
    "Pty",
    "Resize",
    "Run",
    "Script",
    "SessionEnd",
    "Signal",
    "Start",
    "Started",
    "Stop",
    "Stored",
    "StoredList",
    "StoredWorkspace",
    "Synced",
    "Value",
    "VmChanged",
    "VmList",
    "VmReport",
    "VmRequest",
    "VmSpec",
    "Warm",
    "WindowSize",
    "WorkspaceSynced",
    "answer",
    "decode",
    "decode_event",
    "decode_frame",
    "decode_output",
    "encode",
    "open_answer",
    "refusal",
]
