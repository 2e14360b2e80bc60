"""Requests to a host about VMs and their scripts, and its results."""

from __future__ import annotations

from typing import Literal

from mags.protocol.messages.codec import Value
from mags.protocol.messages.workspaces import Attachment


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


class Empty(Value):
    pass


class Done(Value):
    pass


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
