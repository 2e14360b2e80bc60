"""Jobs: run, watched, changed, ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mags.sdk.calls.call import Call, given, path_of
from mags.sdk.errors import MagsError

if TYPE_CHECKING:
    from mags.sdk import types

FRAMES = "application/vnd.mags.frames"
STREAM_TIMEOUT = 45.0
"""Seconds of silence after which a stream is taken for dead: the server says something every 15 s."""
STREAMS = {1: "stdout", 2: "stderr", 3: "system"}
KEEP_UP = "sleep infinity"
"""The script of a VM that has nothing to do but stay; the published client sends it too."""


def run(
    script: str,
    *,
    type: str = "inline",
    name: str | None = None,
    workspace_id: str | None = None,
    base_workspace_id: str | None = None,
    persistent: bool = False,
    no_sleep: bool = False,
    no_sync: bool = False,
    ephemeral: bool = False,
    startup_command: str | None = None,
    environment: Mapping[str, str] | None = None,
    file_ids: Sequence[str] | None = None,
    disk_gb: int | None = None,
    vcpus: int | None = None,
    memory_mb: int | None = None,
    image: str | None = None,
    rootfs_type: str | None = None,
    timeout: int | None = None,
    port: int | None = None,
    url: bool = False,
    idle_timeout: int | None = None,
) -> Call[types.Accepted]:
    """Submit a script; it runs in a microVM of its own. The answer has its `request_id` and comes at once.

    workspace_id: keep the files under this name (with `no_sync`: on the VM's own disk only). base_workspace_id: start
    from a copy of that workspace. persistent: keep the VM when the script has ended. environment: of the script and of
    every exec. timeout: seconds, then it is killed and its exit code is 124. disk_gb, vcpus, memory_mb: the VM's size.
    file_ids: of uploaded files, put into /root. url: open `port` (8080) to the web. idle_timeout: seconds without
    activity until a persistent VM sleeps; no_sleep: never.
    """
    if ephemeral and workspace_id:
        raise MagsError("ephemeral and workspace_id exclude each other: leave one out.")
    if ephemeral and persistent:
        raise MagsError("ephemeral and persistent exclude each other: leave one out.")
    if no_sleep and not persistent:
        raise MagsError("no_sleep needs persistent=True.")
    wish = given(
        name=name,
        workspace_id=workspace_id,
        base_workspace_id=base_workspace_id,
        no_sleep=no_sleep,
        no_sync=no_sync,
        ephemeral=ephemeral,
        startup_command=startup_command,
        environment=dict(environment or {}),
        file_ids=list(file_ids) if file_ids else None,
        disk_gb=disk_gb,
        vcpus=vcpus,
        memory_mb=memory_mb,
        image=image,
        rootfs_type=rootfs_type,
        timeout=timeout,
        port=port,
        url=url,
        idle_timeout=idle_timeout,
    )
    wish = {"script": script, "type": type, "persistent": persistent, **wish}
    return Call("POST", "/mags-jobs", json=wish, creates=True)


def new(name: str | None, *, synced: bool, **options: Any) -> Call[types.Accepted]:
    """A VM that only comes up and stays; `name` is its workspace's. `synced`: kept in the object store."""
    no_sync = name is not None and not synced
    return run(KEEP_UP, workspace_id=name, persistent=True, no_sync=no_sync, **options)


def status(request_id: str) -> Call[types.Job]:
    """How a job is, by request id, name or workspace."""
    return Call("GET", path_of("mags-jobs", request_id, "/status"))


def get_job(request_id: str) -> Call[types.JobRecord]:
    """Everything about a job."""
    return Call("GET", path_of("mags-jobs", request_id))


def logs(request_id: str, *, since: str | None = None, tail: int | None = None) -> Call[types.Logs]:
    """A job's output so far, line by line. `since`: ISO 8601; `tail`: the last so many lines."""
    return Call("GET", path_of("mags-jobs", request_id, "/logs"), query={"since": since, "tail": tail})


def frames(request_id: str, offsets: Mapping[int, int]) -> Call[bytes]:
    """The exact output, followed; `offsets` are the bytes of each stream that are there already."""
    query = {"follow": 1, **{f"{name}_offset": offsets.get(number) or None for number, name in STREAMS.items()}}
    return Call("GET", path_of("mags-jobs", request_id, "/logs"), query=query, accept=FRAMES, timeout=STREAM_TIMEOUT)


def events(request_id: str, last_id: str, *, since: str | None = None, tail: int | None = None) -> Call[bytes]:
    """The output line by line, followed; `last_id` as in Last-Event-ID. `tail`: how many of those that are there."""
    path, accept = path_of("mags-jobs", request_id, "/logs"), "text/event-stream"
    headers = {"Last-Event-ID": last_id} if last_id else {}
    query = {"follow": 1, "since": since, "tail": tail}
    return Call("GET", path, query=query, accept=accept, timeout=STREAM_TIMEOUT, headers=headers)


def list_jobs(
    *, page: int = 1, page_size: int = 20, status: str | None = None, workspace_id: str | None = None
) -> Call[types.JobPage]:
    """Jobs, the newest first."""
    query = {"page": page, "page_size": page_size, "status": status, "workspace_id": workspace_id}
    return Call("GET", "/mags-jobs", query=query)


def update_job(
    request_id: str,
    *,
    startup_command: str | None = None,
    no_sleep: bool | None = None,
    name: str | None = None,
    idle_timeout: int | None = None,
) -> Call[types.Job]:
    """Change how a VM sleeps (`idle_timeout` in seconds) and wakes, or its name. None leaves a thing as it is."""
    wish = {"startup_command": startup_command, "no_sleep": no_sleep, "name": name, "idle_timeout": idle_timeout}
    return Call(
        "PATCH", path_of("mags-jobs", request_id), json={key: value for key, value in wish.items() if value is not None}
    )


def stop(name_or_id: str) -> Call[types.Done]:
    """Save the workspace, then end the VM. A job that has ended stays as it is."""
    return Call("POST", path_of("mags-jobs", name_or_id, "/stop"), creates=True, timeout=180)


def exec(
    name_or_id: str,
    command: str | Sequence[str],
    *,
    timeout: float = 30,
    environment: Mapping[str, str] | None = None,
    workdir: str | None = None,
    user: str | None = None,
    stdin: str | None = None,
) -> Call[types.ExecAnswer]:
    """Run one command in a VM and wait for its whole output."""
    wish = given(environment=dict(environment or {}), workdir=workdir, user=user, stdin=stdin)
    wish |= {"command": command if isinstance(command, str) else list(command), "timeout": timeout}
    return Call("POST", path_of("mags-jobs", name_or_id, "/exec"), json=wish, timeout=timeout + 30)


def sleep(name_or_id: str) -> Call[types.Done]:
    """Sync, save the VM's memory to disk and free it; answered when done."""
    return Call("POST", path_of("mags-jobs", name_or_id, "/sleep"), creates=True, timeout=180)


def wake(name_or_id: str) -> Call[types.Done]:
    """Bring a sleeping VM back; answered when it runs."""
    return Call("POST", path_of("mags-jobs", name_or_id, "/wake"), creates=True, timeout=180)


def sync(request_id: str) -> Call[types.Synced]:
    """Save a workspace now; answered when it is in the object store."""
    return Call("POST", path_of("mags-jobs", request_id, "/sync"), creates=True, timeout=600)


def enable_access(
    request_id: str, *, port: int = 8080, private: bool | None = None, public_key: str | None = None
) -> Call[types.Access]:
    """Open a port of a persistent job: 22 for SSH, others to the web. `private`: with a token or signed link only.
    `public_key`: of a key from an earlier answer; while that opens the job's VM, no other is made."""
    wish: dict[str, Any] = {"port": port}
    if private is not None:
        wish["private"] = private
    if public_key is not None:
        wish["public_key"] = public_key
    return Call("POST", path_of("mags-jobs", request_id, "/access"), json=wish, creates=True, timeout=60)


def disable_access(request_id: str, *, port: int = 8080) -> Call[types.Done]:
    """Close a port again."""
    return Call("DELETE", path_of("mags-jobs", request_id, "/access"), query={"port": port})


def usage(*, window_days: int = 30) -> Call[types.Usage]:
    """What was used in the last `window_days`."""
    return Call("GET", "/mags-jobs/usage", query={"window_days": window_days})


def pool_status() -> Call[types.PoolStatus]:
    """The hosts and their VMs."""
    return Call("GET", "/mags-jobs/pool-status")


def job_path(name_or_id: str, rest: str = "") -> str:
    """Below /api/v1."""
    return path_of("mags-jobs", name_or_id, rest)
