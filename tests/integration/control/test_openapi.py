"""The OpenAPI document, and what strangers' requests made from it can do: no 500, and always the one form of errors."""

from __future__ import annotations

import asyncio
import faulthandler
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation

from tests.integration.control.conftest import TOKEN, alone

EXAMPLES, WRONG_EXAMPLES = 12, 8
"""Requests made for each operation."""


@schemathesis.serializer("application/x-tar")
def tar(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An installation on a thread of its own: schemathesis is not asynchronous."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    url: list[str] = []
    loops: list[asyncio.AbstractEventLoop] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with alone(folder) as mags:
            await mags.host(storage="ok")
            await mags.submit("sleep infinity", persistent=True, name="a", workspace_id="w")
            await mags.reaches("a", "running")
            await mags.run("echo hi", name="over")
            cron = {"name": "tick", "cron_expression": "@yearly", "script": "true"}
            assert (await mags.api.post("/mags-cron", json=cron)).status_code == 201
            url.append(mags.url)
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="server")
    thread.start()
    try:
        assert ready.wait(60)
        yield url[0]
    finally:
        over.set()
        thread.join(60)
        if thread.is_alive():
            faulthandler.dump_traceback()
            for task in asyncio.all_tasks(loops[0]):
                task.print_stack()
            pytest.fail("the installation does not end: what it still waits for is printed above")


@pytest.fixture(scope="module")
def schema(server: str) -> Any:
    generation = GenerationConfig(allow_extra_parameters=False, with_security_parameters=False)
    projects = ProjectsConfig(default=ProjectConfig(generation=generation))
    return schemathesis.openapi.from_url(f"{server}/openapi.json", config=SchemathesisConfig(projects=projects))


def test_the_document_names_every_endpoint_of_the_contract(schema: Any) -> None:
    operations = {f"{result.ok().method.upper()} {result.ok().path}" for result in schema.get_all_operations()}
    for expected in CONTRACT:
        assert expected.replace(" /", " /api/v1/", 1) in operations, expected


def test_answers_have_the_fields_of_the_document_and_no_others(schema: Any, server: str) -> None:
    """One call after the other on a thing that is there; what an answer made is {made} in the next ones."""
    made = ""
    with httpx.Client(base_url=f"{server}/api/v1", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as api:
        for method, template, path, more in CALLS:
            request = api.build_request(method, path.replace("{made}", made), **more)
            request.read()
            response = api.send(request)
            assert response.status_code in (200, 201, 202), (method, path, response.text)
            schema[f"/api/v1{template}"][method].validate_response(response)
            body = response.json()
            made = next((str(body[name]) for name in ("id", "file_id", "request_id") if name in body), made)


def test_unknown_ids_are_not_found(server: str) -> None:
    """With requests that are right in all else."""
    tried = 0
    with httpx.Client(base_url=f"{server}/api/v1", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as api:
        for method, template, path, more in CALLS:
            if "{" not in template:
                continue
            for unknown in ("nobody-has-this", "3f0c2a9e-0000-4000-8000-000000000001"):
                query = path.partition("?")[2]
                response = api.request(method, re.sub(r"{.*?}", unknown, template) + f"?{query}", **more)
                assert (response.status_code, response.json()["code"]) == (404, "not_found"), (method, template)
                tried += 1
    assert tried > 40


def test_no_request_is_answered_with_a_defect(schema: Any) -> None:
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @as_many_as(EXAMPLES)
        @hypothesis.given(case=operation.as_strategy())
        def one(case: Any) -> None:
            nonlocal tried
            tried += 1
            response = sent(case)
            assert response.status_code < 500, (case.as_curl_command(), response.text)
            if response.status_code >= 400:
                check_problem(case, response)

        one()
    assert tried > 100


def test_a_request_that_the_document_forbids_is_refused(schema: Any) -> None:
    """Wrong types, values out of range, what is missing: in path, query, headers and body."""
    tried, nothing_to_violate = 0, set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @as_many_as(WRONG_EXAMPLES)
        @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def one(case: Any) -> None:
            nonlocal tried
            wrong = {part for part, info in case.meta.components.items() if info.mode is GenerationMode.NEGATIVE}
            if "id" in case.path_parameters and ParameterLocation.PATH not in wrong:
                case.path_parameters["id"] = THERE.get(case.path.split("/")[3])
            if wrong == {ParameterLocation.BODY} and case.method.upper() == "PUT":
                return  # of a file any bytes are right, and none
            if wrong == {ParameterLocation.QUERY} and any(isinstance(one, dict | list) for one in case.query.values()):
                return  # in a URL it is the same name several times, the last of which may be right
            tried += 1
            response = sent(case)
            assert response.status_code in (400, 422), (case.as_curl_command(), response.status_code, response.text)
            check_problem(case, response)

        try:
            one()
        except hypothesis.errors.Unsatisfiable:
            nothing_to_violate.add(f"{operation.method.upper()} {operation.path.removeprefix('/api/v1')}")
    assert nothing_to_violate == WITHOUT_PARAMETERS
    assert tried > 200


def as_many_as(examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def sent(case: Any) -> Any:
    return case.call(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)


def check_problem(case: Any, response: Any) -> None:
    assert set(response.json()) == {"error", "code", "details"}, (case.as_curl_command(), response.text)


THERE = {"mags-jobs": "a", "mags-workspaces": "w", "mags-cron": "tick"}
"""Of the things with an id in their addresses, one that the server has."""
WITHOUT_PARAMETERS = {
    "GET /health",
    "GET /mags-jobs/pool-status",
    "GET /mags-files",
    "GET /mags-url-aliases",
    "GET /mags-cron",
    "GET /me",
    "GET /ssh-keys",
}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
CALLS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("GET", "/health", "/health", {}),
    ("GET", "/me", "/me", {}),
    ("POST", "/mags-jobs", "/mags-jobs", {"json": {"script": "true", "colour": 1}}),
    ("GET", "/mags-jobs", "/mags-jobs", {}),
    ("GET", "/mags-jobs/{id}", "/mags-jobs/a", {}),
    ("GET", "/mags-jobs/{id}/status", "/mags-jobs/over/status", {}),
    ("PATCH", "/mags-jobs/{id}", "/mags-jobs/a", {"json": {"idle_timeout": 60, "colour": 1}}),
    ("GET", "/mags-jobs/{id}/logs", "/mags-jobs/over/logs", {}),
    ("POST", "/mags-jobs/{id}/exec", "/mags-jobs/a/exec", {"json": {"command": "true", "colour": 1}}),
    ("POST", "/mags-jobs/{id}/sync", "/mags-jobs/a/sync", {}),
    ("POST", "/mags-jobs/{id}/sleep", "/mags-jobs/a/sleep", {}),
    ("POST", "/mags-jobs/{id}/wake", "/mags-jobs/a/wake", {}),
    ("PUT", "/mags-jobs/{id}/files", "/mags-jobs/a/files?path=f", {"content": b"x"}),
    ("GET", "/mags-jobs/{id}/files/list", "/mags-jobs/a/files/list", {}),
    ("DELETE", "/mags-jobs/{id}/files", "/mags-jobs/a/files?path=f", {}),
    ("POST", "/mags-jobs/{id}/access", "/mags-jobs/a/access", {"json": {"port": 80, "private": True, "colour": 1}}),
    ("DELETE", "/mags-jobs/{id}/access", "/mags-jobs/a/access?port=80", {}),
    ("GET", "/mags-jobs/usage", "/mags-jobs/usage", {}),
    ("GET", "/mags-jobs/pool-status", "/mags-jobs/pool-status", {}),
    ("POST", "/mags-files", "/mags-files", {"files": {"file": ("a", b"x")}}),
    ("GET", "/mags-files", "/mags-files", {}),
    ("DELETE", "/mags-files/{id}", "/mags-files/{made}", {}),
    ("GET", "/mags-workspaces", "/mags-workspaces", {}),
    ("GET", "/mags-workspaces/{id}", "/mags-workspaces/w", {}),
    ("POST", "/mags-workspaces/{id}/resize", "/mags-workspaces/w/resize", {"json": {"disk_gb": 3, "colour": 1}}),
    ("POST", "/mags-url-aliases", "/mags-url-aliases", {"json": {"subdomain": "s", "workspace_id": "w", "x": 1}}),
    ("GET", "/mags-url-aliases", "/mags-url-aliases", {}),
    ("DELETE", "/mags-url-aliases/{subdomain}", "/mags-url-aliases/s", {}),
    (
        "POST",
        "/mags-cron",
        "/mags-cron",
        {"json": {"name": "c", "cron_expression": "@daily", "script": "true", "x": 1}},
    ),
    ("GET", "/mags-cron", "/mags-cron", {}),
    ("GET", "/mags-cron/{id}", "/mags-cron/c", {}),
    ("PATCH", "/mags-cron/{id}", "/mags-cron/c", {"json": {"enabled": False, "x": 1}}),
    ("POST", "/mags-cron/{id}/run", "/mags-cron/c/run", {}),
    ("DELETE", "/mags-cron/{id}", "/mags-cron/c", {}),
    ("POST", "/tokens", "/tokens", {"json": {"x": 1}}),
    ("GET", "/tokens", "/tokens", {}),
    ("DELETE", "/tokens/{id}", "/tokens/{made}", {}),
    ("POST", "/ssh-keys", "/ssh-keys", {"json": {"public_key": KEY, "x": 1}}),
    ("GET", "/ssh-keys", "/ssh-keys", {}),
    ("DELETE", "/ssh-keys/{id}", "/ssh-keys/{made}", {}),
    ("POST", "/mags-jobs/{id}/stop", "/mags-jobs/a/stop", {}),
    ("DELETE", "/mags-workspaces/{id}", "/mags-workspaces/w", {}),
]

CONTRACT = """
POST /mags-jobs
GET /mags-jobs
GET /mags-jobs/{id}
PATCH /mags-jobs/{id}
GET /mags-jobs/{id}/status
GET /mags-jobs/{id}/logs
POST /mags-jobs/{id}/stop
POST /mags-jobs/{id}/exec
POST /mags-jobs/{id}/sync
POST /mags-jobs/{id}/access
POST /mags-jobs/{id}/sleep
POST /mags-jobs/{id}/wake
GET /mags-jobs/{id}/files
PUT /mags-jobs/{id}/files
DELETE /mags-jobs/{id}/files
GET /mags-jobs/{id}/files/list
GET /mags-jobs/usage
GET /mags-jobs/pool-status
POST /mags-files
GET /mags-files
DELETE /mags-files/{id}
GET /mags-workspaces
GET /mags-workspaces/{id}
DELETE /mags-workspaces/{id}
POST /mags-workspaces/{id}/resize
GET /mags-workspaces/{id}/export
POST /mags-workspaces/{id}/import
POST /mags-url-aliases
GET /mags-url-aliases
DELETE /mags-url-aliases/{subdomain}
POST /mags-cron
GET /mags-cron
GET /mags-cron/{id}
PATCH /mags-cron/{id}
DELETE /mags-cron/{id}
POST /mags-cron/{id}/run
GET /me
GET /tokens
POST /tokens
DELETE /tokens/{id}
GET /ssh-keys
POST /ssh-keys
DELETE /ssh-keys/{id}
GET /health
""".strip().splitlines()
