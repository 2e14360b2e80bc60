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

from typing import Any, Literal, TypeVar

import msgspec

from mags.protocol.errors import STATUS, Problem

T = TypeVar("T")


class Value(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Base of every message."""


# --- requests to a host -----------------------------------------------------------------------------------------


class VmSpec(Value):
    """The size and root file system of a VM. Together with the host's versions it selects a template."""

    image: str = "alpine"
    vcpus: int = 1
    memory_mb: int = 512
    disk_gb: int = 2


class FileReference(Value):
    """An uploaded file to put into the VM before the script starts."""

    file_id: str
    name: str
    size: int


class Script(Value):
    """One run of a job's script."""

    job_id: str
    script: str | None = None
    url: str | None = None
    """Fetched inside the VM when `script` is None. Both None: the VM only comes up (`mags new`)."""
    environment: dict[str, str] = {}
    timeout_s: int | None = None
    files: list[FileReference] = []


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


Keep = Literal["job", "park", "stay"]
"""What becomes of a VM whose last script has ended: destroyed, parked with its workspace, or it stays."""


class Start(Value):
    """Repeatable: a second start of the same `vm_id` answers as the first did."""

    vm_id: str
    spec: VmSpec
    owner: str
    script: Script
    keep: Keep = "job"
    name: str | None = None
    """The local (no_sync) or synced workspace's name; for messages only."""
    attachment: Attachment | None = None
    environment: dict[str, str] = {}
    """Of every later exec and of the startup command."""
    startup_command: str | None = None
    idle_timeout_s: int | None = None
    """Seconds without activity until it sleeps (`stay` and `park` only); None: the host's setting."""
    no_sleep: bool = False
    revive: bool = False
    """The VM takes the place of one that was lost: there is no script, and the startup command runs at once."""


class Started(Value):
    start_kind: Literal["pool", "clone", "cold", "parked", "warm"]
    """`warm`: it ran in a VM that was already up."""
    boot_ms: int
    started_at_ms: int
    """Unix time in milliseconds at which the script started."""


class Adjust(Value):
    """None leaves a thing as it is."""

    vm_id: str
    idle_timeout_s: int | None = None
    no_sleep: bool | None = None
    startup_command: str | None = None


class Run(Value):
    """Repeatable: a second run of the same job in the same VM answers as the first did."""

    vm_id: str
    script: Script
    keep: Keep | None = None
    """`stay`: from now on the VM stays (a persistent job has joined it). None leaves it as it is."""
    adjust: Adjust | None = None
    """What such a job wishes of the VM."""


class Cancel(Value):
    vm_id: str
    job_id: str


class Stop(Value):
    vm_id: str


class VmRequest(Value):
    vm_id: str
    force: bool = False
    """Of `sleep`: also a VM that is in use, or that never sleeps. Its host goes down, and it is to wake after that."""


class Exec(Value):
    vm_id: str
    command: str | list[str]
    """A string runs by `/bin/sh -c`."""
    environment: dict[str, str] = {}
    workdir: str | None = None
    user: str | None = None
    stdin: bytes = b""
    timeout_s: float = 30.0
    limit: int = 10 << 20
    """Bytes of stdout and of stderr that are kept; more is dropped and `truncated` set."""


class ExecResult(Value):
    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""
    duration_ms: int = 0
    truncated: bool = False
    timed_out: bool = False


class Pty(Value):
    rows: int = 24
    cols: int = 80
    term: str = "xterm-256color"


class Open(Value):
    """Open a streaming session; frames then travel on `subjects.session_in/out(session_id)`.

    exec: `command`. sftp: an SFTP v3 server on stdin/stdout. connect: TCP to `port` in the guest. read/write: the
    bytes of the file `path` (`mode` for write).
    """

    vm_id: str
    session_id: str
    kind: Literal["exec", "sftp", "connect", "read", "write"]
    command: str | list[str] | None = None
    """None: a login shell."""
    environment: dict[str, str] = {}
    workdir: str | None = None
    user: str | None = None
    pty: Pty | None = None
    timeout_s: float | None = None
    port: int | None = None
    host: str = "127.0.0.1"
    path: str | None = None
    mode: int | None = None
    offset: int = 0
    window: int = 1 << 20
    """Bytes of output that the client is ready to take before it grants more."""


class Opened(Value):
    size: int | None = None
    mode: int | None = None
    window: int = 1 << 20
    """Bytes of input that the host is ready to take before it grants more."""


class Files(Value):
    vm_id: str
    action: Literal["list", "stat", "remove", "mkdir"]
    path: str
    recursive: bool = False
    mode: int = 0o755


class FileEntry(Value):
    name: str
    type: Literal["file", "directory", "link", "other"]
    size: int
    mode: int
    uid: int
    gid: int
    modified_ms: int
    target: str | None = None


class FilesResult(Value):
    entries: list[FileEntry] = []


class Resize(Value):
    vm_id: str
    disk_gb: int


class Dial(Value):
    vm_id: str
    port: int
    edge: str = ""
    """The edge that wants to connect: it is asked before the VM falls asleep (`edge.Release`)."""


class Dialed(Value):
    """`address` is reachable on the host's own machine only (`machine_id` tells whether that is yours)."""

    address: str
    port: int
    machine_id: str


class Warm(Value):
    spec: VmSpec


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


class Empty(Value):
    pass


class Done(Value):
    pass


class Synced(Value):
    synced_at_ms: int
    bytes: int = 0
    duration_ms: int = 0
    freeze_ms: int = 0
    generation: int = 0


class VmReport(Value):
    vm_id: str
    state: str
    owner: str
    jobs: list[str] = []
    """Scripts that run now."""
    memory_mb: int = 0
    epoch: int | None = None
    workspace_id: str | None = None
    keep: Keep = "job"


class VmList(Value):
    vms: list[VmReport] = []


class Answer(Value):
    """`result` is the verb's result, encoded; else `code` and `message` say what was wrong."""

    result: msgspec.Raw = msgspec.Raw()
    code: str | None = None
    message: str = ""
    details: dict[str, Any] = {}


# --- presence ---------------------------------------------------------------------------------------------------


class Presence(Value):
    """What a host says of itself every 2 s. A host silent for 15 s is suspect, for 30 s lost."""

    host_id: str
    machine_id: str
    version: str
    boot: str
    """Changes with every start of the host program."""
    accelerator: str
    cpus: int
    memory_mb: int
    free_memory_mb: int
    free_disk_gb: float
    load: float
    accepting: bool = True
    reason: str = ""
    """Why it takes no new VMs."""
    idle_vms: int = 0
    busy_vms: int = 0
    sleeping_vms: int = 0
    parked_vms: int = 0
    min_pool_size: int = 0
    max_pool_size: int = 0
    images: list[str] = []
    storage: str = ""
    """Empty: no synced workspaces here. "ok", or a sentence about the trouble."""
    local_retention_s: float | None = None
    """How long a sleeping VM is kept whose files are only on this host."""


# --- events (host -> control, JetStream, acknowledged) ------------------------------------------------------------


class JobEnded(Value, tag="job_ended"):
    """A script ended, or will never: `error` says why in a sentence. Repeatable."""

    vm_id: str
    job_id: str
    exit_code: int | None = None
    error: str | None = None
    started: Started | None = None
    """How its start was answered: of a quick script the end may be recorded before the answer."""
    ended_at_ms: int = 0
    cpu_ms: int = 0


class VmChanged(Value, tag="vm_changed"):
    vm_id: str
    state: str
    reason: str = ""
    at_ms: int = 0


class WorkspaceSynced(Value, tag="workspace_synced"):
    vm_id: str
    workspace_id: str
    epoch: int
    generation: int
    bytes: int
    size_bytes: int
    at_ms: int


Event = JobEnded | VmChanged | WorkspaceSynced

# --- a job's output (host -> readers, JetStream) --------------------------------------------------------------------


class Output(Value, tag="output"):
    """Bytes of one stream: 1 stdout, 2 stderr, 3 the platform's own words. `offset` counts the stream's bytes."""

    stream: int
    offset: int
    data: bytes
    at_ms: int


class OutputEnd(Value, tag="end"):
    """Nothing follows. `exit_code` and `error` as in JobEnded."""

    exit_code: int | None = None
    error: str | None = None
    at_ms: int = 0


OutputMessage = Output | OutputEnd

# --- frames of a session --------------------------------------------------------------------------------------------


class Data(Value, tag="data"):
    stream: int
    """0 stdin (to the host), 1 stdout, 2 stderr (from it)."""
    data: bytes


class Credit(Value, tag="credit"):
    """The receiver has consumed this many bytes: as many more may be sent."""

    amount: int


class Eof(Value, tag="eof"):
    """No more stdin."""


class WindowSize(Value, tag="resize"):
    rows: int
    cols: int


class Signal(Value, tag="signal"):
    number: int


class Hangup(Value, tag="hangup"):
    """The client has gone: end the process."""


class Alive(Value, tag="alive"):
    """Sent by both sides every 15 s; a side that hears nothing for 60 s gives the session up."""


class SessionEnd(Value, tag="exit"):
    """The last frame from the host. `code`/`message` describe a problem of the platform, if there was one."""

    exit_code: int | None = None
    code: str | None = None
    message: str = ""
    bytes: int = 0
    details: dict[str, Any] = {}


Frame = Data | Credit | Eof | WindowSize | Signal | Hangup | Alive | SessionEnd

# --- codec ----------------------------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()


def encode(value: Value) -> bytes:
    """MessagePack bytes of any message."""
    return _encoder.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """The message of `kind`; Problem(bad_request) when the bytes are not one."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Problem("bad_request", f"This is not a valid {getattr(kind, '__name__', kind)}: {error}.") from error


_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_outputs: msgspec.msgpack.Decoder[OutputMessage] = msgspec.msgpack.Decoder(OutputMessage)
_frames: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def decode_event(data: bytes) -> Event:
    """msgspec.DecodeError when it is none."""
    return _events.decode(data)


def decode_output(data: bytes) -> OutputMessage:
    return _outputs.decode(data)


def decode_frame(data: bytes) -> Frame:
    return _frames.decode(data)


def answer(result: Value) -> bytes:
    """An encoded positive `Answer`."""
    return _encoder.encode(Answer(result=msgspec.Raw(_encoder.encode(result))))


def refusal(problem: Problem) -> bytes:
    """An encoded negative `Answer`."""
    return _encoder.encode(Answer(code=problem.code, message=problem.message, details=problem.details))


def open_answer(data: bytes, kind: type[T]) -> T:
    """The result inside an `Answer`; raises the problem that it carries."""
    got = decode(data, Answer)
    if got.code is not None:
        code = got.code if got.code in STATUS else "internal"
        raise Problem(code, got.message, **got.details)
    raw = bytes(got.result)
    if not raw:
        raise Problem("internal", "The host answered nothing.")
    return decode(raw, kind)
