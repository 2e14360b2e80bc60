"""The addresses of jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, WebSocket
from starlette.responses import Response

from mags.control import errors
from mags.control.http import Json, Reader, Reference, TheWorld, Writer, the_once
from mags.control.http.streams import Stream
from mags.control.jobs import answers, execs, logs, service, shells, vm_files
from mags.control.jobs.lines import decode_positions
from mags.control.jobs.schemas import ExecRequest, JobChange, JobRequest
from mags.control.records import jobs
from mags.control.records.idempotency import Once
from mags.kit.clock import from_iso
from mags.protocol.states import JobStatus

router = APIRouter(prefix="/mags-jobs", tags=["jobs"])

FilePath = Annotated[str, Query(min_length=1, max_length=4096, description="In the VM; from /root if not absolute.")]
Offset = Annotated[int, Query(ge=0, le=1 << 53)]


@router.post("", status_code=202, response_model=answers.Accepted, summary="Submit a job")
async def submit(
    world: TheWorld, caller: Writer, body: JobRequest, once: Annotated[Once | None, Depends(the_once)]
) -> Response:
    answer = await service.create(world, caller, body, once)
    return Json(answer.body, status_code=answer.status)


@router.get("", response_model=answers.JobPage, summary="List jobs, newest first")
async def page(
    world: TheWorld,
    caller: Reader,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    page_size: Annotated[int, Query(ge=1, le=500)] = 20,
    status: JobStatus | None = None,
    workspace_id: Annotated[str | None, Query(max_length=128)] = None,
    name: Annotated[str | None, Query(max_length=128)] = None,
) -> Response:
    return Json(
        await service.page(world, caller, number=page, size=page_size, status=status, workspace=workspace_id, name=name)
    )


@router.get("/{id}/status", response_model=answers.JobStatusView, summary="How a job is doing")
async def status(world: TheWorld, caller: Reader, id: Reference) -> Response:
    return Json(await service.status(world, caller, id))


@router.get("/{id}", response_model=answers.JobRecord, summary="The full record")
async def record(world: TheWorld, caller: Reader, id: Reference) -> Response:
    return Json(await service.record(world, caller, id))


@router.patch(
    "/{id}",
    response_model=answers.JobRecord,
    summary="Change name, startup command and how it sleeps (no_sleep, idle_timeout)",
)
async def change(world: TheWorld, caller: Writer, id: Reference, body: JobChange) -> Response:
    return Json(await service.change(world, caller, id, body))


@router.get(
    "/{id}/logs",
    response_model=answers.Logs,
    summary="Output, now or as it happens",
    responses={200: {"content": {"text/event-stream": {}, logs.FRAMES: {}}}},
)
async def output(
    request: Request,
    world: TheWorld,
    caller: Reader,
    id: Reference,
    since: Annotated[str | None, Query(max_length=64, description="ISO 8601 time.")] = None,
    tail: Annotated[
        int | None,
        Query(ge=0, le=logs.MAX_ENTRIES, description="The last so many lines; then what comes, if followed."),
    ] = None,
    follow: Annotated[Literal["0", "1", "true", "false"] | None, Query(description="1: until the script ends.")] = None,
    stdout_offset: Offset = 0,
    stderr_offset: Offset = 0,
    system_offset: Offset = 0,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=128)] = None,
) -> Response:
    since_ms = _since(since)
    accept = request.headers.get("accept", "")
    async with world.db.read() as session:
        job = await jobs.get(session, caller.user_id, id)
    if logs.FRAMES in accept:
        positions = {1: stdout_offset, 2: stderr_offset, 3: system_offset}
        return Stream(logs.frames(world, job, positions), media_type=logs.FRAMES)
    if follow in ("1", "true") or "text/event-stream" in accept:
        behind = decode_positions(last_event_id) if last_event_id else None
        tail = tail if behind is None else None  # who goes on has had the end of what there was
        source = logs.events(world, job, behind or {1: 0, 2: 0, 3: 0}, since_ms=since_ms, tail=tail)
        return Stream(source, media_type="text/event-stream")
    return Json(await logs.snapshot(world, job, since_ms=since_ms, tail=tail))


def _since(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(from_iso(text.strip()).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise errors.invalid("since", "Give an ISO 8601 time, such as 2026-01-31T12:00:00Z.") from None


@router.post("/{id}/stop", response_model=answers.Stopped, summary="Sync, then end the VM")
async def stop(world: TheWorld, caller: Writer, id: Reference) -> Response:
    return Json(await service.stop(world, caller, id))


@router.post("/{id}/exec", response_model=answers.ExecAnswer, summary="Run a command in the VM")
async def run_command(world: TheWorld, caller: Writer, id: Reference, body: ExecRequest) -> Response:
    answer: dict[str, Any] = await execs.run_command(world, caller, id, body)
    return Json(answer)


@router.websocket("/{id}/exec")
async def shell(websocket: WebSocket, id: str) -> None:
    await shells.serve(websocket, id)


@router.post("/{id}/sync", response_model=answers.SyncedView, summary="Make the workspace's files durable now")
async def sync(world: TheWorld, caller: Writer, id: Reference) -> Response:
    return Json(await service.sync(world, caller, id))


@router.post("/{id}/sleep", response_model=answers.PowerView, summary="Sleep now")
async def sleep(world: TheWorld, caller: Writer, id: Reference) -> Response:
    return Json(await service.power(world, caller, id, "sleep"))


@router.post("/{id}/wake", response_model=answers.PowerView, summary="Wake now")
async def wake(world: TheWorld, caller: Writer, id: Reference) -> Response:
    return Json(await service.power(world, caller, id, "wake"))


@router.get("/{id}/files/list", response_model=answers.Listing, summary="List a directory in the VM")
async def list_files(world: TheWorld, caller: Reader, id: Reference, path: FilePath = "/root") -> Response:
    return Json(await vm_files.listing(world, caller, id, path))


@router.get(
    "/{id}/files",
    summary="Read a file in the VM",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def read_file(world: TheWorld, caller: Reader, id: Reference, path: FilePath) -> Response:
    return await vm_files.read(world, caller, id, path)


@router.put(
    "/{id}/files",
    response_model=answers.Written,
    summary="Write a file in the VM",
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}},
)
async def write_file(
    request: Request,
    world: TheWorld,
    caller: Writer,
    id: Reference,
    path: FilePath,
    mode: Annotated[str | None, Query(max_length=8, description="Permissions in octal, such as 755.")] = None,
) -> Response:
    chosen = vm_files.parse_mode(mode or request.headers.get(vm_files.MODE_HEADER))
    return Json(await vm_files.write(world, caller, id, path, request.stream(), chosen))


@router.delete("/{id}/files", response_model=answers.Removed, summary="Remove a file or directory in the VM")
async def remove_file(
    world: TheWorld, caller: Writer, id: Reference, path: FilePath, recursive: bool = False
) -> Response:
    return Json(await vm_files.remove(world, caller, id, path, recursive=recursive))
