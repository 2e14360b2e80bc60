"""What a guest says, decoded from frames. Nothing here trusts the guest: lengths, numbers and texts are bounded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from stat import S_IMODE, S_ISDIR, S_ISLNK, S_ISREG

from mags.protocol.guest.fields import integer, read_fields, sentence, text
from mags.protocol.guest.frames import VERSION, ProtocolError
from mags.protocol.guest.wishes import MAX_WINDOW, Part

MAX_PROCESSES = 1024
MAX_PROCESS_ID = (1 << 31) - 1
"""The host numbers on from the highest id that was used: there must be room above it in 32 bits."""
MAX_NAME = 255
MAX_TARGET = 4096
STDOUT, STDERR, RESULT = 1, 2, 3

_PROCESS = struct.Struct("<IIB3xI8Q")
_EXIT = struct.Struct("<BB2xI6Q")
_STATS = struct.Struct("<12Q")
_PONG = struct.Struct("<QQ")
_ENTRY = struct.Struct("<IIIQqHH")
_RESULT = struct.Struct("<HHI")


@dataclass(frozen=True, slots=True)
class Offsets:
    """The next wanted byte of each output stream of a process."""

    stdout: int = 0
    stderr: int = 0
    result: int = 0


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process that the agent still holds: it runs, or its exit was not yet acknowledged."""

    id: int
    pid: int
    running: bool
    acknowledged: Offsets
    """The agent can resend from here."""
    written: Offsets
    """So much output there is by now."""
    window: int
    """Bytes of each stream that the agent holds at most."""
    stdin_received: int
    stdin_limit: int


@dataclass(frozen=True, slots=True)
class Hello:
    protocol: int
    agent_version: str
    boot_id: str
    uptime_ms: int
    processes: tuple[ProcessInfo, ...]
    last_process_id: int
    """The highest id ever used in this guest; ids are not used twice."""
    root_mounted: bool

    @classmethod
    def decode(cls, payload: bytes) -> Hello:
        if len(payload) < 10:
            raise ProtocolError("HELLO is too short")
        version = integer(payload[8:10], 2)
        if version != VERSION:
            raise ProtocolError(f"the agent speaks protocol {version}, this host {VERSION}")
        agent, boot_id, uptime, last, flags = "", "", 0, 0, 0
        processes: list[ProcessInfo] = []
        for tag, value in read_fields(payload[10:]):
            match tag:
                case 1:
                    agent = text(value, 64)
                case 2:
                    boot_id = text(value, 64)
                case 3:
                    uptime = integer(value, 8)
                case 4:
                    processes.append(_process(value))
                case 5:
                    last = integer(value, 4)
                case 6:
                    flags = integer(value, 4)
                case _:
                    raise ProtocolError(f"HELLO has an unknown field {tag}")
        if len(processes) > MAX_PROCESSES or len({p.id for p in processes}) != len(processes):
            raise ProtocolError("HELLO lists too many processes, or one twice")
        if last > MAX_PROCESS_ID or any(process.id > last for process in processes):
            raise ProtocolError("HELLO has an impossible id of a process")
        return cls(version, agent, boot_id, uptime, tuple(processes), last, bool(flags & 1))


def _process(value: bytes) -> ProcessInfo:
    if len(value) != _PROCESS.size:
        raise ProtocolError("HELLO has a malformed process")
    id, pid, exited, window, a1, e1, a2, e2, a3, e3, received, limit = _PROCESS.unpack(value)
    held = (e1 - a1, e2 - a2, e3 - a3)
    if min(held) < 0 or max(held) > window or not 0 < window <= MAX_WINDOW or not id or received > limit:
        raise ProtocolError("HELLO has a process with impossible numbers")
    acknowledged, written = Offsets(a1, a2, a3), Offsets(e1, e2, e3)
    return ProcessInfo(id, pid, not exited, acknowledged, written, window, received, limit)


@dataclass(frozen=True, slots=True)
class PartResult:
    part: Part
    errno: int
    message: str


def decode_configured(payload: bytes) -> tuple[PartResult, ...]:
    """One result for each part that the CONFIGURE asked for."""
    results: list[PartResult] = []
    for tag, value in read_fields(payload):
        try:
            part = Part(tag)
        except ValueError:
            raise ProtocolError(f"CONFIGURED has an unknown part {tag}") from None
        if any(result.part == part for result in results):
            raise ProtocolError(f"CONFIGURED answers {part.name} twice")
        if len(value) < 2:
            raise ProtocolError("CONFIGURED has a malformed part")
        results.append(PartResult(part, integer(value[:2], 2), sentence(value[2:], 256)))
    return tuple(results)


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of one output stream; `offset` is that of its first byte."""

    stream: int
    offset: int
    data: bytes


def decode_output(payload: bytes) -> Output:
    if len(payload) < 10 or payload[0] not in (STDOUT, STDERR, RESULT):
        raise ProtocolError("malformed OUTPUT")
    return Output(payload[0], int.from_bytes(payload[1:9], "little"), payload[9:])


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Exactly one of code, signal and error is set."""

    code: int | None
    signal: int | None
    timed_out: bool
    duration_ms: int
    max_rss_kb: int = 0
    cpu_ms: int = 0
    error: int | None = None
    """errno when the process could not be started."""
    message: str = ""
    written: Offsets = Offsets()

    @property
    def exit_code(self) -> int:
        """As a shell gives it: 128 + signal, 124 after a time-out, 127 not found, 126 not startable."""
        if self.timed_out:
            return 124
        if self.error is not None:
            return 127 if self.error == 2 else 126
        if self.signal is not None:
            return 128 + self.signal
        return self.code if self.code is not None else 1


def decode_exit(payload: bytes) -> Exit:
    if len(payload) < _EXIT.size:
        raise ProtocolError("EXIT is too short")
    kind, timed_out, value, duration, rss, cpu, out1, out2, out3 = _EXIT.unpack_from(payload)
    if kind > 2 or timed_out > 1 or (kind == 0 and value > 255) or (kind == 1 and not 1 <= value <= 64):
        raise ProtocolError("malformed EXIT")
    return Exit(
        code=value if kind == 0 else None,
        signal=value if kind == 1 else None,
        error=value if kind == 2 else None,
        timed_out=bool(timed_out),
        duration_ms=duration,
        max_rss_kb=rss,
        cpu_ms=cpu,
        message=sentence(payload[_EXIT.size :], 512),
        written=Offsets(out1, out2, out3),
    )


@dataclass(frozen=True, slots=True)
class Stats:
    """Bytes, milliseconds; the disk is the work disk."""

    memory_total: int
    memory_available: int
    disk_total: int
    disk_free: int
    uptime_ms: int
    load_1: float
    load_5: float
    load_15: float
    processes: int
    received_bytes: int
    sent_bytes: int
    cpu_ms: int

    @classmethod
    def decode(cls, payload: bytes) -> Stats:
        if len(payload) != _STATS.size:
            raise ProtocolError("malformed answer to STATS")
        total, available, disk, free, up, l1, l5, l15, count, rx, tx, cpu = _STATS.unpack(payload)
        return cls(total, available, disk, free, up, l1 / 1e3, l5 / 1e3, l15 / 1e3, count, rx, tx, cpu)


def decode_pong(payload: bytes) -> tuple[int, int]:
    """The guest's wall clock and its time since boot, nanoseconds."""
    if len(payload) != _PONG.size:
        raise ProtocolError("malformed answer to PING")
    wall, uptime = _PONG.unpack(payload)
    return wall, uptime


def decode_error(payload: bytes) -> tuple[int, str]:
    """errno and message of an ERROR."""
    if len(payload) < 2:
        raise ProtocolError("malformed ERROR")
    return int.from_bytes(payload[:2], "little"), sentence(payload[2:], 512)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the guest. `name` is as listed, `target` that of a symbolic link."""

    name: str
    mode: int
    size: int
    uid: int
    gid: int
    mtime_ns: int
    target: str = ""

    @property
    def permissions(self) -> int:
        return S_IMODE(self.mode)

    @property
    def type(self) -> str:
        """file, directory, symlink or other."""
        if S_ISREG(self.mode):
            return "file"
        if S_ISDIR(self.mode):
            return "directory"
        return "symlink" if S_ISLNK(self.mode) else "other"


def decode_entries(data: bytes) -> tuple[list[Entry], int]:
    """The whole entries at the beginning of `data`, and how many bytes they took."""
    entries: list[Entry] = []
    at = 0
    while len(data) - at >= _ENTRY.size:
        mode, uid, gid, size, mtime, name_length, target_length = _ENTRY.unpack_from(data, at)
        if name_length > MAX_NAME or target_length > MAX_TARGET:
            raise ProtocolError("a directory entry is too long")
        start = at + _ENTRY.size
        end = start + name_length + target_length
        if end > len(data):
            break
        name = text(data[start : start + name_length], MAX_NAME)
        target = text(data[start + name_length : end], MAX_TARGET)
        entries.append(Entry(name, mode, size, uid, gid, mtime, target))
        at = end
    return entries, at


@dataclass(frozen=True, slots=True)
class Result:
    """A record on the result stream of a builtin: errno (0: good), a message, and data."""

    errno: int
    message: str
    data: bytes


def decode_results(data: bytes) -> tuple[list[Result], int]:
    """The whole results at the beginning of `data`, and how many bytes they took."""
    results: list[Result] = []
    at = 0
    while len(data) - at >= _RESULT.size:
        errno, message_length, data_length = _RESULT.unpack_from(data, at)
        if message_length > 512 or data_length > 8192:
            raise ProtocolError("a result record is too long")
        start = at + _RESULT.size
        end = start + message_length + data_length
        if end > len(data):
            break
        message = sentence(data[start : start + message_length], 512)
        results.append(Result(errno, message, data[start + message_length : end]))
        at = end
    return results, at
