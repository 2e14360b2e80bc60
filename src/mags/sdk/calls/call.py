"""One request as a value."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from mags.sdk.errors import MagsError
from mags.sdk.transports import Body, Request

T = TypeVar("T")
JSON = "application/json"


class Call(NamedTuple, Generic[T]):
    """`creates`: carries an Idempotency-Key, so that repeating it is safe. `timeout` in seconds; None: the client's.
    `single`: it is never repeated, for instance because its body can be read only once."""

    method: str
    path: str
    json: Mapping[str, Any] | None = None
    query: Mapping[str, str | int | None] = {}
    creates: bool = False
    timeout: float | None = None
    body: Body | None = None
    content_type: str = JSON
    length: int | None = None
    single: bool = False
    accept: str = JSON
    headers: Mapping[str, str] = {}

    def request(self, token: str, agent: str) -> Request:
        """What goes to the transport. A new Idempotency-Key each time, unless the call has one: build it once for all
        tries."""
        headers = {"Authorization": f"Bearer {token}", "User-Agent": agent, "Accept": self.accept, **self.headers}
        body = self.body
        if self.json is not None:
            body = json.dumps(self.json).encode()
        if body is not None:
            headers["Content-Type"] = self.content_type
        if self.length is not None:
            headers["Content-Length"] = str(self.length)
        if self.creates:
            headers.setdefault("Idempotency-Key", os.urandom(16).hex())
        query = {name: value for name, value in self.query.items() if value is not None}
        target = f"/api/v1{self.path}" + (f"?{urlencode(query)}" if query else "")
        return Request(self.method, target, headers, body, self.timeout, self.single)


def path_of(collection: str, name: str, rest: str = "") -> str:
    """The path of one thing. A name that a path can't carry is refused here, before it means something else."""
    if not name or name in (".", ".."):
        raise MagsError(f"{name!r} is no name. Give a request id, a job's name or a workspace.")
    return f"/{collection}/{quote(name, safe='')}{rest}"


def given(**fields: Any) -> dict[str, Any]:
    """The fields that were given (neither None nor False nor empty)."""
    return {name: value for name, value in fields.items() if value is not None and value is not False and value != {}}
