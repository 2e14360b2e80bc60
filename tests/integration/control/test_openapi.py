"""The OpenAPI document, and what strangers' requests made from it can do: no 500, and always the one form of errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig

from tests.integration.control.conftest import TOKEN, alone

EXAMPLES = 12
"""Requests made for each operation."""


@schemathesis.serializer("application/x-tar")
def tar(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An installation on a thread of its own: schemathesis is not asynchronous."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    url: list[str] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with alone(folder) as mags:
            await mags.host()
            await mags.submit("sleep infinity", persistent=True, name="a")
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
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def schema(server: str) -> Any:
    return schemathesis.openapi.from_url(f"{server}/openapi.json", config=SchemathesisConfig())


def test_the_document_names_every_endpoint_of_the_contract(schema: Any) -> None:
    operations = {f"{result.ok().method.upper()} {result.ok().path}" for result in schema.get_all_operations()}
    for expected in CONTRACT:
        assert expected.replace(" /", " /api/v1/", 1) in operations, expected


def test_no_request_is_answered_with_a_defect(schema: Any, server: str) -> None:
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def one(case: Any) -> None:
            nonlocal tried
            tried += 1
            response = case.call(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
            assert response.status_code < 500 or response.status_code == 503, (case.as_curl_command(), response.text)
            if response.status_code >= 400:
                body = response.json()
                assert set(body) == {"error", "code", "details"}, (case.as_curl_command(), response.text)

        one()
    assert tried > 100


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
