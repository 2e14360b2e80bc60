"""Every request of the API, once, as a value; Mags sends it at once and AsyncMags awaits it.

A `Call[T]` names what its answer is; nothing is sent here. Argument checks that the published client made before
sending are made here too. `{id}` of a path is a request id, a job's name or a workspace: the server resolves it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from mags.sdk.errors import MagsError
from mags.sdk.transports import Body, Request

if TYPE_CHECKING:
    from mags.sdk import types

T = TypeVar("T")
JSON = "application/json"
BYTES = "application/octet-stream"
TAR = "application/x-tar"
FRAMES = "application/vnd.mags.frames"
STREAM_TIMEOUT = 45.0
"""Seconds of silence after which a stream is taken for dead: the server says something every 15 s."""


class Call(NamedTuple, Generic[T]):
    """`creates`: carries an Idempotency-Key, so that repeating it is safe. `timeout` in seconds; None: the client's."""

    method: str
    path: str
    json: Mapping[str, Any] | None = None
    query: Mapping[str, str | int | None] = {}
    creates: bool = False
    timeout: float | None = None
    body: Body | None = None
    content_type: str = JSON
    length: int | None = None
    accept: str = JSON
    headers: Mapping[str, str] = {}

    def request(self, token: str, agent: str) -> Request:
        """What goes to the transport. A new Idempotency-Key each time: build it once for all tries."""
        headers = {"Authorization": f"Bearer {token}", "User-Agent": agent, "Accept": self.accept, **self.headers}
        body = self.body
        if self.json is not None:
            body = json.dumps(self.json).encode()
        if body is not None:
            headers["Content-Type"] = self.content_type
        if self.length is not None:
            headers["Content-Length"] = str(self.length)
        if self.creates:
            headers["Idempotency-Key"] = os.urandom(16).hex()
        query = {name: value for name, value in self.query.items() if value is not None}
        target = f"/api/v1{self.path}" + (f"?{urlencode(query)}" if query else "")
        return Request(self.method, target, headers, body, self.timeout)


def _one(collection: str, name: str, rest: str = "") -> str:
    """The path of one thing. A name that a path can't carry is refused here, before it means something else."""
    if not name or name in (".", ".."):
        raise MagsError(f"{name!r} is no name. Give a request id, a job's name or a workspace.")
    return f"/{collection}/{quote(name, safe='')}{rest}"


def job_path(name_or_id: str, rest: str = "") -> str:
    """Below /api/v1."""
    return _one("mags-jobs", name_or_id, rest)


def _set(**fields: Any) -> dict[str, Any]:
    """The fields that were given (neither None nor False nor empty)."""
    return {name: value for name, value in fields.items() if value is not None and value is not False and value != {}}


# --- jobs ---------------------------------------------------------------------------------------------------------


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
    if ephemeral and workspace_id:
        raise MagsError("ephemeral and workspace_id exclude each other: leave one out.")
    if ephemeral and persistent:
        raise MagsError("ephemeral and persistent exclude each other: leave one out.")
    if no_sleep and not persistent:
        raise MagsError("no_sleep needs persistent=True.")
    wish = _set(
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


KEEP_UP = "sleep infinity"
"""The script of a VM that has nothing to do but stay; the published client sends it too."""


def status(request_id: str) -> Call[types.Job]:
    return Call("GET", _one("mags-jobs", request_id, "/status"))


def get_job(request_id: str) -> Call[types.Job]:
    return Call("GET", _one("mags-jobs", request_id))


def logs(request_id: str, *, since: str | None = None, tail: int | None = None) -> Call[types.Logs]:
    return Call("GET", _one("mags-jobs", request_id, "/logs"), query={"since": since, "tail": tail})


def frames(request_id: str, offsets: Mapping[int, int]) -> Call[bytes]:
    """The exact output, followed; `offsets` are the bytes of each stream that are there already."""
    query = {"follow": 1, **{f"{name}_offset": offsets.get(number) or None for number, name in STREAMS.items()}}
    return Call("GET", _one("mags-jobs", request_id, "/logs"), query=query, accept=FRAMES, timeout=STREAM_TIMEOUT)


STREAMS = {1: "stdout", 2: "stderr", 3: "system"}


def events(request_id: str, last_id: str) -> Call[bytes]:
    """The output line by line, followed; `last_id` as in Last-Event-ID."""
    path, accept = _one("mags-jobs", request_id, "/logs"), "text/event-stream"
    headers = {"Last-Event-ID": last_id} if last_id else {}
    return Call("GET", path, query={"follow": 1}, accept=accept, timeout=STREAM_TIMEOUT, headers=headers)


def list_jobs(
    *, page: int = 1, page_size: int = 20, status: str | None = None, workspace_id: str | None = None
) -> Call[types.JobPage]:
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
    wish = {"startup_command": startup_command, "no_sleep": no_sleep, "name": name, "idle_timeout": idle_timeout}
    return Call(
        "PATCH", _one("mags-jobs", request_id), json={key: value for key, value in wish.items() if value is not None}
    )


def stop(name_or_id: str) -> Call[types.Done]:
    return Call("POST", _one("mags-jobs", name_or_id, "/stop"), creates=True, timeout=180)


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
    wish = _set(environment=dict(environment or {}), workdir=workdir, user=user, stdin=stdin)
    wish |= {"command": command if isinstance(command, str) else list(command), "timeout": timeout}
    return Call("POST", _one("mags-jobs", name_or_id, "/exec"), json=wish, timeout=timeout + 30)


def sleep(name_or_id: str) -> Call[types.Done]:
    """Sync, save the VM's memory to disk and free it; answered when done."""
    return Call("POST", _one("mags-jobs", name_or_id, "/sleep"), creates=True, timeout=180)


def wake(name_or_id: str) -> Call[types.Done]:
    """Bring a sleeping VM back; answered when it runs."""
    return Call("POST", _one("mags-jobs", name_or_id, "/wake"), creates=True, timeout=180)


def sync(request_id: str) -> Call[types.Synced]:
    return Call("POST", _one("mags-jobs", request_id, "/sync"), creates=True, timeout=600)


def enable_access(request_id: str, *, port: int = 8080, private: bool | None = None) -> Call[types.Access]:
    wish = {"port": port} if private is None else {"port": port, "private": private}
    return Call("POST", _one("mags-jobs", request_id, "/access"), json=wish, creates=True, timeout=60)


def disable_access(request_id: str, *, port: int = 8080) -> Call[types.Done]:
    return Call("DELETE", _one("mags-jobs", request_id, "/access"), query={"port": port})


def usage(*, window_days: int = 30) -> Call[types.Usage]:
    return Call("GET", "/mags-jobs/usage", query={"window_days": window_days})


def pool_status() -> Call[types.PoolStatus]:
    return Call("GET", "/mags-jobs/pool-status")


# --- files in a VM ------------------------------------------------------------------------------------------------


def read_file(name_or_id: str, path: str) -> Call[bytes]:
    return Call("GET", _one("mags-jobs", name_or_id, "/files"), query={"path": path}, accept=BYTES, timeout=60)


def write_file(name_or_id: str, path: str, body: Body, *, length: int | None, mode: int | None) -> Call[types.Done]:
    """`length` in bytes when it is known; `mode` as chmod(2) takes it."""
    query = {"path": path, "mode": f"{mode:o}" if mode is not None else None}
    return Call(
        "PUT",
        _one("mags-jobs", name_or_id, "/files"),
        query=query,
        body=body,
        length=length,
        content_type=BYTES,
        timeout=120,
    )


def delete_file(name_or_id: str, path: str, *, recursive: bool = False) -> Call[types.Done]:
    query = {"path": path, "recursive": "true" if recursive else None}
    return Call("DELETE", _one("mags-jobs", name_or_id, "/files"), query=query)


def list_files(name_or_id: str, path: str = "/root") -> Call[dict[str, Any]]:
    return Call("GET", _one("mags-jobs", name_or_id, "/files/list"), query={"path": path})


# --- uploaded files -----------------------------------------------------------------------------------------------


def upload(body: Body, *, length: int, boundary: str) -> Call[types.File]:
    kind = f"multipart/form-data; boundary={boundary}"
    return Call("POST", "/mags-files", body=body, length=length, content_type=kind, creates=True, timeout=300)


def list_uploads() -> Call[types.Files]:
    return Call("GET", "/mags-files")


def delete_upload(file_id: str) -> Call[types.Done]:
    return Call("DELETE", _one("mags-files", file_id))


# --- workspaces ---------------------------------------------------------------------------------------------------


def list_workspaces() -> Call[types.Workspaces]:
    return Call("GET", "/mags-workspaces")


def get_workspace(workspace_id: str) -> Call[types.Workspace]:
    return Call("GET", _one("mags-workspaces", workspace_id))


def delete_workspace(workspace_id: str) -> Call[types.Done]:
    return Call("DELETE", _one("mags-workspaces", workspace_id), timeout=120)


def resize_workspace(workspace_id: str, disk_gb: int) -> Call[types.Workspace]:
    return Call("POST", _one("mags-workspaces", workspace_id, "/resize"), json={"disk_gb": disk_gb}, timeout=120)


def export_workspace(workspace_id: str) -> Call[bytes]:
    """All files of a workspace as a tar archive."""
    return Call("GET", _one("mags-workspaces", workspace_id, "/export"), accept=TAR, timeout=300)


def import_workspace(workspace_id: str, body: Body, *, disk_gb: int | None = None) -> Call[types.Workspace]:
    """A new workspace from such an archive."""
    path, query = _one("mags-workspaces", workspace_id, "/import"), {"disk_gb": disk_gb}
    return Call("POST", path, query=query, body=body, content_type=TAR, timeout=600)


# --- URLs ---------------------------------------------------------------------------------------------------------


def url_alias_create(subdomain: str, workspace_id: str, domain: str | None = None) -> Call[types.Alias]:
    wish = _set(subdomain=subdomain, workspace_id=workspace_id, domain=domain)
    return Call("POST", "/mags-url-aliases", json=wish, creates=True)


def url_alias_list() -> Call[types.Aliases]:
    return Call("GET", "/mags-url-aliases")


def url_alias_delete(subdomain: str) -> Call[types.Done]:
    return Call("DELETE", _one("mags-url-aliases", subdomain))


# --- cron ---------------------------------------------------------------------------------------------------------


def cron_create(
    *,
    name: str,
    cron_expression: str,
    script: str,
    workspace_id: str | None = None,
    environment: Mapping[str, str] | None = None,
    persistent: bool = False,
    enabled: bool = True,
    timezone: str | None = None,
) -> Call[types.CronJob]:
    wish = {"name": name, "cron_expression": cron_expression, "script": script, "persistent": persistent}
    wish |= _set(workspace_id=workspace_id, environment=dict(environment or {}), timezone=timezone)
    return Call("POST", "/mags-cron", json=wish | {"enabled": enabled}, creates=True)


def cron_list() -> Call[types.CronJobs]:
    return Call("GET", "/mags-cron")


def cron_get(cron_id: str) -> Call[types.CronJob]:
    return Call("GET", _one("mags-cron", cron_id))


def cron_update(cron_id: str, **updates: Any) -> Call[types.CronJob]:
    return Call("PATCH", _one("mags-cron", cron_id), json=updates)


def cron_delete(cron_id: str) -> Call[types.Done]:
    return Call("DELETE", _one("mags-cron", cron_id))


def cron_run(cron_id: str) -> Call[types.Accepted]:
    return Call("POST", _one("mags-cron", cron_id, "/run"), creates=True)


# --- account ------------------------------------------------------------------------------------------------------


def me() -> Call[dict[str, Any]]:
    return Call("GET", "/me")


def health() -> Call[dict[str, Any]]:
    return Call("GET", "/health", timeout=10)


def list_tokens() -> Call[types.Tokens]:
    return Call("GET", "/tokens")


def create_token(name: str, *, expires_at: str | None = None, scopes: Sequence[str] | None = None) -> Call[types.Token]:
    wish = _set(name=name, expires_at=expires_at, scopes=list(scopes) if scopes else None)
    return Call("POST", "/tokens", json=wish, creates=True)


def delete_token(token_id: str) -> Call[types.Done]:
    return Call("DELETE", _one("tokens", token_id))


def list_ssh_keys() -> Call[dict[str, Any]]:
    return Call("GET", "/ssh-keys")


def add_ssh_key(public_key: str, *, name: str | None = None) -> Call[dict[str, Any]]:
    return Call("POST", "/ssh-keys", json=_set(public_key=public_key, name=name), creates=True)


def delete_ssh_key(key_id: str) -> Call[types.Done]:
    return Call("DELETE", _one("ssh-keys", key_id))
