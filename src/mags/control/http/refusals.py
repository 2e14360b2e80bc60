"""Every way in which a request can fail, in the one form of problems."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mags.control.http.answers import Json, problem_answer
from mags.protocol.errors import Problem
from mags.protocol.ids import JOB_NAME, WORKSPACE_NAME

log = logging.getLogger("mags.control.http")

_FIELD_FIRST = re.compile(r"([a-z_]+): (.*)", re.DOTALL)
_BY_STATUS = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 413: "too_large"}

_BEGINS = "and begins with a letter or a digit."
_PATTERNS = {
    f"^{WORKSPACE_NAME.pattern}$": f"It may have letters, digits and . _ - only (63 at most), {_BEGINS}",
    f"^{JOB_NAME.pattern}$": f"It may have letters, digits, spaces and . _ - only (128 at most), {_BEGINS}",
}
"""In place of what Pydantic says of them."""


def install(app: FastAPI) -> None:
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in (IntegrityError, OperationalError, InterfaceError, PoolTimeout, sqlite3.OperationalError, OSError):
        app.add_exception_handler(kind, _away)
    app.add_exception_handler(Exception, _defect)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_answer(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_answer(from_validation(error.errors()))


def from_validation(errors: Sequence[Any]) -> Problem:
    """400 for a body that is no JSON (or has the wrong content type), 422 that names each wrong field otherwise."""
    if any(one.get("type") == "json_invalid" for one in errors):
        return Problem("bad_request", "The body is not valid JSON.")
    fields: dict[str, str] = {}
    for one in errors[:20]:
        where = [str(part) for part in one.get("loc", ())]
        where = where[1:] if where[:1] in (["body"], ["query"], ["path"], ["header"]) else where
        said = _PATTERNS.get(one.get("ctx", {}).get("pattern", ""), str(one.get("msg", "")))
        name, said = ".".join(where)[:128], said.removeprefix("Value error, ")
        if not name and (found := _FIELD_FIRST.match(said)):  # a check of several fields together names the one
            name, said = found[1], found[2]
        fields[name or "body"] = _sentence(said)
    name, said = next(iter(fields.items()), ("body", "It is wrong."))
    if name == "body" and any(one.get("type") in ("missing", "model_attributes_type") for one in errors):
        return Problem("bad_request", "Send a JSON object, with Content-Type: application/json.")
    return Problem("invalid", f"{name}: {said}", fields=fields)


def _sentence(words: str) -> str:
    words = words.strip()
    return words[:1].upper() + words[1:].rstrip(".")[:300] + "."


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        words = f"{request.method} is not possible here."
        body = {"error": words, "code": "method_not_allowed", "details": {}}
        return Json(body, status_code=405, headers=dict(error.headers or {}))
    code = _BY_STATUS.get(error.status_code, "bad_request")
    words = str(error.detail)
    if error.status_code == 404:
        words = "There is no such address. The API is described at /docs."
    elif error.status_code == 400:
        words = "The body can't be read: " + words[:200].rstrip(".") + "."
    return problem_answer(Problem(code, words))


async def _away(request: Request, error: Exception) -> Response:
    """The database, or a disk, could not: nothing was kept."""
    if isinstance(error, TimeoutError):  # an OSError too, and not one of these
        return await _defect(request, error)
    if isinstance(error, IntegrityError):
        return problem_answer(Problem("unavailable", "Another request was just changing the same; try again."))
    log.error("%s %s failed: %s", request.method, request.url.path, error)
    return problem_answer(Problem("unavailable", "The server's records can't be used now; try again in a moment."))


async def _defect(request: Request, error: Exception) -> Response:
    log.error("a defect in %s %s", request.method, request.url.path, exc_info=error)
    return problem_answer(Problem("internal", "Something is wrong in the server; its log has the details."))
