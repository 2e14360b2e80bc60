"""The ASGI application: routes, problems, the OpenAPI document."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp

import mags
from mags.control import accounts, cron, files, hosts, jobs, urls, workspaces
from mags.control.http import Authenticator, refusals
from mags.control.http.shell import Shell
from mags.control.lifecycles.world import World

BASE = "/api/v1"


def build(world: World) -> ASGIApp:
    """The application for a world that is ready."""
    app = application()
    app.state.world = world
    app.state.authenticator = Authenticator(world.db)
    return Shell(app, max_body=world.settings.max_body_bytes, max_upload=world.settings.max_file_bytes)


def application() -> FastAPI:
    """Routes without a world: enough for the OpenAPI document."""
    app = FastAPI(
        title="Mags",
        version=mags.__version__,
        description="Runs scripts in microVMs that are there at once. Times are ISO 8601 UTC; tokens come as Bearer.",
        redoc_url=None,
    )
    refusals.install(app)
    # Fixed names come before /mags-jobs/{id}.
    for router in (
        hosts.router,
        accounts.usage_router,
        urls.access_router,
        jobs.router,
        files.router,
        workspaces.router,
        urls.router,
        cron.router,
        accounts.router,
    ):
        app.include_router(router, prefix=BASE)
    app.add_api_route("/", _to_docs, include_in_schema=False)
    return app


async def _to_docs() -> RedirectResponse:
    return RedirectResponse("/docs")
