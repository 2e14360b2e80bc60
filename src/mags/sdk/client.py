# Made from async_client.py by `./dev fmt`; edit that.
"""The client: a method for each request of the API, and for what takes several of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Concatenate, ParamSpec, TypeVar

from mags.sdk import retries, settings, types, waiting
from mags.sdk.binding import document
from mags.sdk.calls import account, cron, files, jobs, urls, workspaces
from mags.sdk.calls.call import Call
from mags.sdk.errors import NotFound, WaitTimeout
from mags.sdk.exec_protocol import start_message
from mags.sdk.frames import Chunk, End
from mags.sdk.httpx_transport import Httpx
from mags.sdk.process import Process
from mags.sdk.sandbox import Sandbox
from mags.sdk.sender import Sender
from mags.sdk.transports import Transport
from mags.sdk.uploads import readable, upload_call, whole

P = ParamSpec("P")
T = TypeVar("T")


def _sends(build: Callable[P, Call[T]]) -> Callable[Concatenate[Mags, P], T]:
    def method(self: Mags, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.sender.send(build(*args, **kwargs))

    document(method, build)
    return method


class Mags:
    """A client for one server. Safe to share between threads; close it, or use it in a `with` block.

    `api_token`, `api_url`: else from MAGS_API_TOKEN (or MAGS_TOKEN) and MAGS_API_URL, else from ~/.mags/config.json.
    `timeout`: the longest silence of the server in seconds. `max_tries`: how often a request is sent at most (answers
    429 and 503, lost connections). `transport`: another way for requests to travel (`MockTransport` in tests).
    """

    def __init__(
        self,
        api_token: str | None = None,
        api_url: str | None = None,
        timeout: float = 30,
        *,
        max_tries: int = retries.TRIES,
        transport: Transport | None = None,
    ) -> None:
        found = settings.find(api_token, api_url)
        self.api_url, self.api_token, self.timeout = found.api_url, found.api_token, timeout
        self.sender = Sender(found, transport or Httpx(found.api_url, timeout=timeout), tries=max_tries)

    def close(self) -> None:
        """Close its connections."""
        self.sender.close()

    def __enter__(self) -> Mags:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    run = _sends(jobs.run)
    status = _sends(jobs.status)
    get_job = _sends(jobs.get_job)
    logs = _sends(jobs.logs)
    list_jobs = _sends(jobs.list_jobs)
    update_job = _sends(jobs.update_job)
    stop = _sends(jobs.stop)
    sync = _sends(jobs.sync)
    sleep = _sends(jobs.sleep)
    wake = _sends(jobs.wake)
    enable_access = _sends(jobs.enable_access)
    disable_access = _sends(jobs.disable_access)
    usage = _sends(jobs.usage)
    pool_status = _sends(jobs.pool_status)
    delete_file = _sends(files.delete_file)
    list_uploads = _sends(files.list_uploads)
    delete_upload = _sends(files.delete_upload)
    list_workspaces = _sends(workspaces.list_workspaces)
    get_workspace = _sends(workspaces.get_workspace)
    delete_workspace = _sends(workspaces.delete_workspace)
    resize_workspace = _sends(workspaces.resize_workspace)
    url_alias_create = _sends(urls.url_alias_create)
    url_alias_list = _sends(urls.url_alias_list)
    url_alias_delete = _sends(urls.url_alias_delete)
    cron_create = _sends(cron.cron_create)
    cron_list = _sends(cron.cron_list)
    cron_get = _sends(cron.cron_get)
    cron_update = _sends(cron.cron_update)
    cron_delete = _sends(cron.cron_delete)
    cron_run = _sends(cron.cron_run)
    me = _sends(account.me)
    health = _sends(account.health)
    list_tokens = _sends(account.list_tokens)
    create_token = _sends(account.create_token)
    delete_token = _sends(account.delete_token)
    list_ssh_keys = _sends(account.list_ssh_keys)
    add_ssh_key = _sends(account.add_ssh_key)
    delete_ssh_key = _sends(account.delete_ssh_key)

    def run_and_wait(
        self, script: str, *, timeout: float = 60.0, poll_interval: float | None = None, **run_kwargs: Any
    ) -> types.RunResult:
        """Run a script and return its whole result. `timeout`: seconds to wait, then WaitTimeout (it runs on).

        The other arguments are those of `run`. `poll_interval` is taken for compatibility: nothing is polled.
        """
        deadline = time.monotonic() + timeout
        request_id = self.run(script, **run_kwargs)["request_id"]
        lines, end = list[types.LogLine](), dict[str, Any]()
        for name, found in self.sender.lines(request_id, deadline=deadline):
            if name == "end":
                end = found
            else:
                lines.append(found)  # type: ignore[arg-type]
        return waiting.run_result(self.status(request_id), lines, end)

    def stream_logs(
        self, request_id: str, *, since: str | None = None, tail: int | None = None
    ) -> Generator[types.LogLine, None, None]:
        """A job's output line by line, as it comes, until its script has ended. Survives lost connections.

        `since`: ISO 8601. `tail`: of the lines that are there already only the last so many.
        """
        for name, found in self.sender.lines(request_id, since=since, tail=tail):
            if name != "end":
                yield found  # type: ignore[misc]

    def stream_output(self, request_id: str) -> Generator[Chunk | End, None, None]:
        """The exact bytes of a job's output as `(stream, data)`; the last thing is an `End` with the exit code."""
        return self.sender.output(request_id)

    def new(
        self,
        name: str,
        *,
        persistent: bool = False,
        base_workspace_id: str | None = None,
        disk_gb: int | None = None,
        timeout: float = 30.0,
        poll_interval: float | None = None,
        **run_kwargs: Any,
    ) -> types.Running:
        """Make a sandbox that stays and wait until it is up. `persistent`: its files are kept in the object store,
        else on the VM's own disk only. `timeout` in seconds; `poll_interval` is taken for compatibility."""
        deadline = time.monotonic() + timeout
        call = jobs.new(name, synced=persistent, base_workspace_id=base_workspace_id, disk_gb=disk_gb, **run_kwargs)
        request_id = self.sender.send(call)["request_id"]
        self._wait_up(request_id, deadline)
        return {"request_id": request_id, "status": "running"}

    def find_job(self, name_or_id: str) -> types.Job | None:
        """The job of that id, name or workspace (running or sleeping ones first); None if there is none."""
        try:
            return self.status(name_or_id)
        except NotFound:
            return None

    def exec(
        self,
        name_or_id: str,
        command: str | Sequence[str],
        *,
        timeout: float = 30,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        stdin: str | None = None,
    ) -> types.ExecResult:
        """Run one command in a VM (a sleeping one wakes) and return its output, up to 10 MiB a stream.

        A string runs by `/bin/sh -c`. After `timeout` seconds it is killed and the exit code is 124.
        """
        call = jobs.exec(
            name_or_id, command, timeout=timeout, environment=environment, workdir=workdir, user=user, stdin=stdin
        )
        return waiting.exec_result(self.sender.send(call))

    def exec_stream(
        self,
        name_or_id: str,
        command: str | Sequence[str] | None = None,
        *,
        pty: tuple[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> Process:
        """Start a command (default: a login shell) and talk to it while it runs. `pty`: (rows, columns)."""
        start = start_message(command, pty=pty, environment=environment, workdir=workdir, user=user, timeout=timeout)
        return Process(self.sender.settings, name_or_id, start)

    def url(self, name_or_id: str, *, port: int = 8080) -> types.Access:
        """Open a port of a VM to the web; the answer has its `url`."""
        return self.enable_access(name_or_id, port=port)

    def resize(
        self, workspace: str, disk_gb: int, *, timeout: float = 30.0, poll_interval: float | None = None
    ) -> types.Running:
        """Grow a workspace's disk, in place; its VM is up afterwards (made if there is none). Files are kept."""
        self.resize_workspace(workspace, disk_gb)
        job = self.find_job(workspace)
        if job is None or job["status"] not in ("running", "sleeping"):
            return self.new(workspace, persistent=True, disk_gb=disk_gb, timeout=timeout)
        return {"request_id": job["request_id"], "status": job["status"]}

    def upload_file(self, file_path: str | os.PathLike[str]) -> str:
        """Upload a file; its id goes into `file_ids` of `run`."""
        return self.sender.send(upload_call(file_path))["file_id"]

    def upload_files(self, file_paths: Sequence[str | os.PathLike[str]]) -> list[str]:
        """Upload files; their ids in the same order."""
        return [self.upload_file(path) for path in file_paths]

    def read_file(self, name_or_id: str, path: str) -> bytes:
        """A whole file of a VM."""
        return b"".join(self.iter_file(name_or_id, path))

    def iter_file(self, name_or_id: str, path: str) -> Generator[bytes, None, None]:
        """A file of a VM, in pieces."""
        with self.sender.open(files.read_file(name_or_id, path)) as exchange:
            yield from self.sender.body(exchange)

    def write_file(
        self,
        name_or_id: str,
        path: str,
        content: bytes | str | os.PathLike[str] | BinaryIO,
        *,
        mode: int | None = None,
    ) -> types.Done:
        """Write a file in a VM. `content`: bytes or text, a local file (a Path), or an open binary file."""
        body, length, single = readable(content)
        call = files.write_file(name_or_id, path, body, length=length, mode=mode, single=single)
        return self.sender.send(call)

    def list_files(self, name_or_id: str, path: str = "/root") -> list[types.Entry]:
        """What a directory of a VM holds."""
        entries: list[types.Entry] = self.sender.send(files.list_files(name_or_id, path))["entries"]
        return entries

    def export_workspace(self, workspace_id: str, file_path: str | os.PathLike[str]) -> None:
        """Write all of a workspace to an archive; the file has its name only when it is whole."""
        with self.sender.open(workspaces.export_workspace(workspace_id)) as exchange:
            with whole(file_path) as file:
                for chunk in self.sender.body(exchange):
                    file.write(chunk)

    def import_workspace(
        self, workspace_id: str, file_path: str | os.PathLike[str], *, disk_gb: int | None = None
    ) -> types.Workspace:
        """Make a workspace from such an archive. Conflict when there is one of that name."""
        body, _, _ = readable(Path(file_path))
        return self.sender.send(workspaces.import_workspace(workspace_id, body, disk_gb=disk_gb))

    @contextmanager
    def sandbox(
        self, name: str | None = None, *, persistent: bool = False, timeout: float = 60.0, **run_kwargs: Any
    ) -> Iterator[Sandbox]:
        """A VM for the length of a `with` block, then stopped. `persistent` keeps the files of workspace
        `name`."""
        deadline = time.monotonic() + timeout
        request_id = self.sender.send(jobs.new(name, synced=persistent, **run_kwargs))["request_id"]
        try:
            self._wait_up(request_id, deadline)
            yield Sandbox(self, request_id, name)
        finally:
            self.stop(request_id)

    def _wait_up(self, request_id: str, deadline: float) -> None:
        pause = None
        while not waiting.is_up(self.status(request_id)):
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"Job {request_id} did not come up in the time given. See its status, or stop it.")
            pause = waiting.next_poll(pause)
            time.sleep(pause)
