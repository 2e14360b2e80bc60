"""Files in VMs, and files uploaded for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mags.sdk.calls.call import Call, path_of
from mags.sdk.transports import Body

if TYPE_CHECKING:
    from mags.sdk import types

BYTES = "application/octet-stream"


def read_file(name_or_id: str, path: str) -> Call[bytes]:
    """The bytes of a file in a VM."""
    return Call("GET", path_of("mags-jobs", name_or_id, "/files"), query={"path": path}, accept=BYTES, timeout=60)


def write_file(
    name_or_id: str, path: str, body: Body, *, length: int | None, mode: int | None, single: bool = False
) -> Call[types.Done]:
    """`length` in bytes when it is known; `mode` as chmod(2) takes it; `single`: `body` can be read only once."""
    query = {"path": path, "mode": f"{mode:o}" if mode is not None else None}
    return Call(
        "PUT",
        path_of("mags-jobs", name_or_id, "/files"),
        query=query,
        body=body,
        length=length,
        single=single,
        content_type=BYTES,
        timeout=120,
    )


def delete_file(name_or_id: str, path: str, *, recursive: bool = False) -> Call[types.Done]:
    """Remove a file in a VM; `recursive`: a directory with everything in it."""
    query = {"path": path, "recursive": "true" if recursive else None}
    return Call("DELETE", path_of("mags-jobs", name_or_id, "/files"), query=query)


def list_files(name_or_id: str, path: str = "/root") -> Call[dict[str, Any]]:
    """What a directory of a VM holds."""
    return Call("GET", path_of("mags-jobs", name_or_id, "/files/list"), query={"path": path})


def upload(body: Body, *, length: int, boundary: str) -> Call[types.File]:
    """Upload a file, as a multipart body of `length` bytes."""
    kind = f"multipart/form-data; boundary={boundary}"
    return Call("POST", "/mags-files", body=body, length=length, content_type=kind, creates=True, timeout=300)


def list_uploads() -> Call[types.Files]:
    """The files that were uploaded."""
    return Call("GET", "/mags-files")


def delete_upload(file_id: str) -> Call[types.Done]:
    """Remove an uploaded file."""
    return Call("DELETE", path_of("mags-files", file_id))
