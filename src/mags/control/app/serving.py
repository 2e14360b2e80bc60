"""The HTTP server around the application."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket

import uvicorn

from mags.control.app.api import build
from mags.control.lifecycles.world import World

log = logging.getLogger("mags.control")

GRACE = 3
"""Seconds that open requests get at the end; streams are cut, and their clients connect again."""
MAX_WEBSOCKET_FRAME = (1 << 20) + 16


class Server(uvicorn.Server):
    """Not yet listening; `serve` runs until `stop`. The process's signals are somebody else's business."""

    def __init__(self, world: World) -> None:
        settings = world.settings
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # it logs each WebSocket otherwise
        super().__init__(
            uvicorn.Config(
                build(world),
                host=settings.host,
                port=settings.port,
                uds=str(settings.uds) if settings.uds is not None else None,
                fd=settings.fd,
                http="httptools",
                ws="websockets-sansio",
                ws_max_size=MAX_WEBSOCKET_FRAME,
                ws_ping_interval=20.0,
                ws_ping_timeout=20.0,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=GRACE,
                backlog=2048,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        if sockets is None and self.config.fd is not None:
            sockets = [socket(fileno=self.config.fd)]  # of the family that it is; uvicorn takes it for a Unix socket
        await super().startup(sockets)
        if self.started:
            log.info("the API is at %s", self.address)

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        config = self.config
        if config.uds is not None or config.fd is not None:
            return str(config.uds or f"descriptor {config.fd}")
        return f"http://{config.host}:{self.port}"

    def stop(self) -> None:
        self.should_exit = True

    @property
    def port(self) -> int:
        """The port it listens on, once `started`."""
        return int(self.servers[0].sockets[0].getsockname()[1])
