"""What the host asks of a guest: the values of CONFIGURE and EXEC and their encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Interface

from mags.protocol.guest.fields import FieldWriter

DEFAULT_WINDOW = 256 * 1024
MAX_WINDOW = 4 * 1024 * 1024
STDIN_WINDOW = 64 * 1024
"""Bytes of stdin that may be sent before the agent grants more."""
MAX_SCRIPT = 1024 * 1024
MAX_ENTROPY = 512
MIN_ENTROPY = 32
MAX_HANDLE = 64


class Part(IntEnum):
    """The parts of a CONFIGURE, in the order in which the agent applies them."""

    CLOCK = 1
    ENTROPY = 2
    HOSTNAME = 3
    NETWORK = 4
    ROOT = 5
    MACHINE_ID = 6
    GROW = 7
    JFS = 8
    UNMOUNT_JFS = 9
    ENVIRONMENT = 10


@dataclass(frozen=True, slots=True)
class Network:
    """The guest's eth0. Applying it where it is already so changes nothing."""

    address: IPv4Interface
    gateway: IPv4Address
    nameservers: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Jfs:
    """An NFSv3 export, mounted on /jfs of the guest."""

    server: IPv4Address
    port: int
    path: str
    handle: bytes = b""
    """Of the root, at most 64 bytes (RFC 1813). Empty: the guest asks for it, which takes it some 30 ms more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """Parts that are None (False, empty) are left as they are."""

    clock_ns: int | None = None
    """Wall clock, nanoseconds since the epoch."""
    entropy: bytes | None = None
    """32 to 512 bytes of host randomness; credited to the guest's pool, which is then reseeded."""
    hostname: str | None = None
    network: Network | None = None
    root: bool = False
    """Mount the image and the work disk as the overlay in which every process runs."""
    machine_id: bytes | None = None
    """16 bytes for /etc/machine-id."""
    grow: bool = False
    """Let the work disk's file system fill its device."""
    disk_bytes: int | None = None
    """Of the work disk: to be there before it is mounted or grown. A guest hears of a new size a moment later."""
    jfs: Jfs | None = None
    unmount_jfs: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of every process started later."""

    def parts(self) -> frozenset[Part]:
        """Which parts the agent has to confirm."""
        wished = {
            Part.CLOCK: self.clock_ns is not None,
            Part.ENTROPY: self.entropy is not None,
            Part.HOSTNAME: self.hostname is not None,
            Part.NETWORK: self.network is not None,
            Part.ROOT: self.root,
            Part.MACHINE_ID: self.machine_id is not None,
            Part.GROW: self.grow,
            Part.JFS: self.jfs is not None,
            Part.UNMOUNT_JFS: self.unmount_jfs,
            Part.ENVIRONMENT: bool(self.environment),
        }
        return frozenset(part for part, is_wished in wished.items() if is_wished)

    def encode(self) -> bytes:
        fields = FieldWriter()
        if self.clock_ns is not None:
            fields.add_int(Part.CLOCK, self.clock_ns)
        if self.entropy is not None:
            if not MIN_ENTROPY <= len(self.entropy) <= MAX_ENTROPY:
                raise ValueError(f"entropy must be {MIN_ENTROPY} to {MAX_ENTROPY} bytes")
            fields.add(Part.ENTROPY, self.entropy)
        if self.hostname is not None:
            fields.add_text(Part.HOSTNAME, self.hostname)
        if self.network is not None:
            interface = self.network.address
            packed = interface.ip.packed + bytes((interface.network.prefixlen,)) + self.network.gateway.packed
            fields.add(Part.NETWORK, packed + b"".join(server.packed for server in self.network.nameservers))
        disk = b"" if self.disk_bytes is None else self.disk_bytes.to_bytes(8, "little")
        if self.root:
            fields.add(Part.ROOT, disk)
        if self.machine_id is not None:
            if len(self.machine_id) != 16:
                raise ValueError("a machine id has 16 bytes")
            fields.add(Part.MACHINE_ID, self.machine_id)
        if self.grow:
            fields.add(Part.GROW, disk)
        if self.unmount_jfs:
            fields.add(Part.UNMOUNT_JFS)
        if self.jfs is not None:
            if "\0" in self.jfs.path:
                raise ValueError("a path must not hold NUL bytes")
            if len(self.jfs.handle) > MAX_HANDLE:
                raise ValueError(f"a file handle has at most {MAX_HANDLE} bytes")
            head = self.jfs.server.packed + self.jfs.port.to_bytes(2, "little")
            fields.add(Part.JFS, head + bytes((len(self.jfs.handle),)) + self.jfs.handle + self.jfs.path.encode())
        for name, value in self.environment.items():
            fields.add_text(Part.ENVIRONMENT, _assignment(name, value))
        return fields.getvalue()


class ExecField(IntEnum):
    ARGUMENT = 1
    SCRIPT = 2
    BUILTIN = 3
    ENVIRONMENT = 4
    CWD = 5
    USER = 6
    TERMINAL = 7
    TIMEOUT = 8
    WINDOW = 9
    STDIN = 10
    LIMIT = 11


class Builtin(IntEnum):
    """Work that the agent does in a forked child of its own, confined to the guest's root."""

    WARM = 1
    FILE_READ = 2
    FILE_WRITE = 3
    FILE_LIST = 4
    FILE_STAT = 5
    FILE_REMOVE = 6
    FILE_MKDIR = 7
    FILE_RENAME = 8
    SFTP = 9
    CONNECT = 10


@dataclass(frozen=True, slots=True)
class Terminal:
    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """One process. Exactly one of argv without script, script, or builtin says what runs."""

    argv: Sequence[str] = ()
    """Program and arguments; with `script` its positional parameters, with `builtin` its arguments."""
    script: bytes | None = None
    """Run by /bin/sh, or by the interpreter of its #! line. At most 1 MiB; CRLF line ends are accepted."""
    builtin: Builtin | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    """Empty: the user's home directory, or / where there is none."""
    user: str = ""
    """A name of the guest's /etc/passwd, or uid, or uid:gid. Empty: root."""
    terminal: Terminal | None = None
    """Run on a pseudo terminal; everything then comes on stream 1."""
    timeout_ms: int = 0
    """After this long the whole session is killed and the exit says so; 0 is never."""
    window: int = DEFAULT_WINDOW
    """Bytes of each output stream the agent holds unacknowledged before it stops reading."""
    stdin: bool = False
    """Whether stdin is open; otherwise it is /dev/null (never with a terminal)."""
    limits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Resource limits: resource.RLIMIT_* -> (soft, hard); -1 is unlimited."""

    def encode(self) -> bytes:
        if (self.script is not None) + (self.builtin is not None) + bool(
            self.argv and self.script is None and self.builtin is None
        ) != 1:
            raise ValueError("exactly one of argv, script and builtin says what runs")
        fields = FieldWriter()
        for argument in self.argv:
            fields.add_text(ExecField.ARGUMENT, argument)
        if self.script is not None:
            if len(self.script) > MAX_SCRIPT:
                raise ValueError(f"a script may have at most {MAX_SCRIPT} bytes")
            fields.add(ExecField.SCRIPT, self.script)
        if self.builtin is not None:
            fields.add_int(ExecField.BUILTIN, self.builtin, 1)
        for name, value in self.environment.items():
            fields.add_text(ExecField.ENVIRONMENT, _assignment(name, value))
        if self.cwd:
            fields.add_text(ExecField.CWD, self.cwd)
        if self.user:
            fields.add_text(ExecField.USER, self.user)
        if self.terminal is not None:
            rows, columns = self.terminal.rows, self.terminal.columns
            fields.add(ExecField.TERMINAL, rows.to_bytes(2, "little") + columns.to_bytes(2, "little"))
        if self.timeout_ms:
            fields.add_int(ExecField.TIMEOUT, self.timeout_ms)
        if not 1 <= self.window <= MAX_WINDOW:
            raise ValueError(f"a window has 1 to {MAX_WINDOW} bytes")
        fields.add_int(ExecField.WINDOW, self.window, 4)
        if self.stdin or self.terminal is not None:
            fields.add(ExecField.STDIN)
        for resource, (soft, hard) in self.limits.items():
            packed = resource.to_bytes(1, "little")
            for bound in (soft, hard):
                packed += (bound & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
            fields.add(ExecField.LIMIT, packed)
        return fields.getvalue()


def _assignment(name: str, value: str) -> str:
    if not name or "=" in name:
        raise ValueError(f"bad name of an environment variable: {name!r}")
    return f"{name}={value}"
