"""Copies between here and a VM: files by the files API, directories as tar archives through `tar` in the VM."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from mags.cli.command import MISUSED, Refused
from mags.sdk.calls import files, jobs
from mags.sdk.uploads import file_chunks

if TYPE_CHECKING:
    from mags.cli.command import Session
    from mags.sdk.process import Process

HOME = "/root"
CHUNK = 1 << 20
COMPLAINTS = 4096
"""Bytes of what `tar` says on stderr that are kept, the last ones: a VM may write without end."""


class Place(NamedTuple):
    """`vm` is None for a local path."""

    vm: str | None
    path: str


def parse(word: str) -> Place:
    """NAME:PATH, unless a slash or a drive letter comes before the colon."""
    vm, colon, path = word.partition(":")
    if not colon or "/" in vm or os.sep in vm or (os.name == "nt" and len(vm) == 1):
        return Place(None, word)
    if not vm:
        raise Refused(f"{word!r} has no name before the colon. Give NAME:PATH.", MISUSED)
    return Place(vm, path)


def absolute(path: str) -> str:
    return path if path.startswith("/") else f"{HOME}/{path}".rstrip("/")


def join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def is_directory(session: Session, vm: str, path: str) -> bool:
    return session.sender.send(jobs.exec(vm, ["test", "-d", path]))["exit_code"] == 0


def send_file(session: Session, source: Path | None, vm: str, path: str) -> None:
    """None: from stdin."""
    if source is None:

        def chunks() -> Iterator[bytes]:
            while chunk := os.read(sys.stdin.fileno(), CHUNK):
                yield chunk

        session.sender.send(files.write_file(vm, path, chunks, length=None, mode=None, single=True))
        return
    facts = source.stat()
    body = lambda: file_chunks(source)  # noqa: E731
    session.sender.send(files.write_file(vm, path, body, length=facts.st_size, mode=facts.st_mode & 0o7777))


def receive_file(session: Session, vm: str, path: str, output: IO[bytes]) -> int | None:
    """The file's mode, if the server says it."""
    with session.sender.open(files.read_file(vm, path)) as exchange:
        for chunk in session.sender.body(exchange):
            output.write(chunk)
        output.flush()
        mode = exchange.headers.get("x-mags-mode", "")
        return int(mode, 8) if mode and all(digit in "01234567" for digit in mode) else None


def receive_to(session: Session, vm: str, path: str, target: Path) -> None:
    """Under its name only when it is whole."""
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            partial = Path(file.name)
            try:
                mode = receive_file(session, vm, path, file.file)
                partial.chmod(0o644 if mode is None else mode & 0o777)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise Refused(f"{target} can't be written: {error.strerror}.") from error


def send_directory(session: Session, source: Path, vm: str, path: str) -> None:
    with _process(session, vm, ["/bin/sh", "-c", 'mkdir -p "$1" && exec tar -xf - -C "$1"', "sh", path]) as process:
        with tarfile.open(fileobj=_Stdin(process), mode="w|", bufsize=CHUNK, format=tarfile.PAX_FORMAT) as archive:
            for path_here in sorted(source.iterdir()):
                archive.add(path_here, arcname=path_here.name, filter=_anonymous)
        process.close_stdin()
        _finish(process, f"{vm}:{path}")


def receive_directory(session: Session, vm: str, path: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with _process(session, vm, ["tar", "-cf", "-", "-C", path, "."]) as process:
        process.close_stdin()
        output = _Stdout(process)
        try:
            with tarfile.open(fileobj=output, mode="r|", bufsize=CHUNK) as archive:
                archive.extractall(target, filter="data")
        except tarfile.TarError as error:
            _finish(process, f"{vm}:{path}", output.complaints)
            raise Refused(f"{vm}:{path} did not come whole: {error}.") from error
        _finish(process, f"{vm}:{path}", output.complaints)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Our users mean nothing in a VM."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _process(session: Session, vm: str, command: list[str]) -> Process:
    from mags.sdk.exec_protocol import start_message
    from mags.sdk.process import Process

    return Process(session.settings, vm, start_message(command))


def _finish(process: Process, what: str, complaints: bytes = b"") -> None:
    said = complaints
    for chunk in process:
        if chunk.stream == 2:
            said = (said + chunk.data)[-COMPLAINTS:]
    if process.exit_code:
        raise Refused(f"{what} could not be copied: {said.decode(errors='replace').strip() or 'tar failed'}")


class _Stdin(io.RawIOBase):
    """A process's stdin as a file."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._process.write(bytes(data))
        return len(data)


class _Stdout(io.RawIOBase):
    """A process's stdout as a file; the last of what comes on stderr is kept."""

    def __init__(self, process: Process) -> None:
        self._chunks, self._rest, self.complaints = iter(process), b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            if chunk.stream == 1:
                self._rest = chunk.data
            else:
                self.complaints = (self.complaints + chunk.data)[-COMPLAINTS:]
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
