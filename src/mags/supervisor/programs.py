"""The programs of a server, how they are started, and how one knows that they are ready."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec

from mags.kit import programs as installed
from mags.kit.addresses import split_address
from mags.kit.children import Child
from mags.supervisor import broker
from mags.supervisor.config import Settings, inherited_environment, reachable, reachable_url
from mags.supervisor.layout import Layout

Ready = Callable[[], Awaitable[bool]]


def broker_child(layout: Layout, address: str, *, on_restart: Callable[[], None]) -> Child:
    return Child(
        "nats-server",
        [installed.find("nats-server"), "--config", layout.nats_config],
        log_file=layout.log / "nats.log",
        pid_file=layout.pid_file("nats"),
        ready=lambda: answers_nats(address),
        on_restart=on_restart,
    )


def child(
    name: str,
    settings: Settings,
    layout: Layout,
    environment: dict[str, str],
    ready: Ready,
    descriptors: Sequence[int],
    *,
    on_restart: Callable[[], None],
) -> Child:
    """One of our own programs: `python -m mags.NAME`."""
    return Child(
        name,
        [sys.executable, "-m", f"mags.{name}"],
        log_file=layout.log / f"{name}.log",
        pid_file=layout.pid_file(name),
        env=environment,
        ready=ready,
        start_timeout=settings.start_timeout_s,
        stop_timeout=60.0 if name == "host" else 15.0,
        on_restart=on_restart,
        pass_fds=descriptors,
    )


def environment(
    name: str,
    settings: Settings,
    layout: Layout,
    nats_url: str,
    *,
    inherited: dict[str, str] | None = None,
    storage: dict[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a program: ours, what it may be told otherwise, and what only we know.

    `storage`: settings of the host's storage, where we run the object store.
    """
    given = inherited_environment() if inherited is None else inherited
    defaults, fixed = {"control": _control, "host": _host, "edge": _edge}[name](settings, layout)
    prefix = f"MAGS_{name.upper()}_"
    fixed["NATS_URL"] = nats_url
    if name == "host":
        fixed |= storage or {}
    return {
        **{f"{prefix}{key}": value for key, value in defaults.items()},
        **given,
        **{f"{prefix}{key}": value for key, value in fixed.items()},
        "PYTHONUNBUFFERED": "1",
    }


def _control(settings: Settings, layout: Layout) -> tuple[dict[str, str], dict[str, str]]:
    host, port = split_address(settings.api)
    apps_port = split_address(settings.apps)[1]
    ssh_host, ssh_port = split_address(settings.ssh)
    defaults = {
        "DATABASE_URL": f"sqlite:///{layout.database}",
        "PUBLIC_URL": reachable_url(settings.api),
        "SSH_HOST": "127.0.0.1" if ssh_host in ("0.0.0.0", "::") else ssh_host,
        "APPS_PORT": str(apps_port),
        "SSH_PORT": str(ssh_port),
    }
    fixed = {
        "HOST": host,
        "PORT": str(port),
        "BOOTSTRAP_TOKEN_FILE": str(layout.bootstrap_token),
        "APPS_DOMAIN": settings.apps_domain,
    }
    return defaults, fixed


def _host(settings: Settings, layout: Layout) -> tuple[dict[str, str], dict[str, str]]:
    defaults: dict[str, str] = {}
    fixed = {"DATA_DIR": str(layout.data)}
    if settings.s3 == "local":
        fixed["STORAGE_KIND"] = "local"
    return defaults, fixed


def _edge(settings: Settings, layout: Layout) -> tuple[dict[str, str], dict[str, str]]:
    host, port = split_address(settings.ssh)
    defaults = {"RUN_DIR": str(layout.sockets)}
    fixed = {
        "DATA_DIR": str(layout.edge),
        "LISTEN_HTTP": settings.apps,
        "APPS_DOMAIN": settings.apps_domain,
        "SSH_LISTEN": host,
        "SSH_PORT": str(port),
    }
    return defaults, fixed


def is_installed(name: str) -> bool:
    return find_spec(f"mags.{name}.__main__") is not None


def nats_configuration(layout: Layout, address: str, users: dict[str, str]) -> str:
    return broker.configuration(address=address, store=layout.nats, users=users, server_name=f"mags-{layout.id}")


async def answers_nats(address: str) -> bool:
    """Whether a nats-server greets there (its INFO line) with JetStream on."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(*split_address(reachable(address)))
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
        return greeting.startswith(b"INFO ") and bool(json.loads(greeting[5:]).get("jetstream"))
    except (OSError, ValueError, TimeoutError):
        return False


async def answers_http(address: str, target: str) -> bool:
    """Whether GET `target` there is answered with 200."""
    host, port = split_address(reachable(address))
    try:
        async with asyncio.timeout(3):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                status = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
        return status.split()[1:2] == [b"200"]
    except (OSError, TimeoutError):
        return False


async def accepts(address: str) -> bool:
    """Whether somebody takes connections there."""
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(*split_address(reachable(address)))
            writer.close()
            await writer.wait_closed()
        return True
    except (OSError, TimeoutError):
        return False
