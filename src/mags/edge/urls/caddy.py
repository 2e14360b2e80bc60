"""Caddy's configuration (its JSON form, https://caddyserver.com/docs/json/) and its life as our child."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from mags.edge.config import Settings
from mags.edge.urls import pages
from mags.edge.urls.gate import HEALTH_PATH, SOCKET_HEADER, TOKEN_HEADER
from mags.kit.addresses import split_address
from mags.kit.children import Child
from mags.kit.files import write_atomic
from mags.kit.programs import find

Json = dict[str, Any]

KEEP_ALIVE = "15s"
"""How long Caddy keeps an unused connection to a relay. An open one counts as activity of the VM, so not long."""
GRACE = "3s"
"""How long requests may go on when the edge is told to end."""
CLIENT_IDLE = "5m"


def configuration(settings: Settings, *, open_dir: Path, gate: Path, ask_port: int) -> Json:
    """The whole configuration. Three steps for each request:

    1. to `open_dir/LABEL.sock`, where LABEL is the one before the apps domain;
    2. when there is no such socket (the dial fails, nothing of the request is spent): ask the gate, which answers
       the client itself or names a socket to go on with;
    3. when a relay or program hangs up before it has answered: a page that says so.
    """
    level = settings.apps_domain.count(".") + 1
    label = f"{{http.request.host.labels.{level}}}"
    hot = _proxy(f"unix/{open_dir}/{label}.sock")
    ask_gate = _ask_gate(gate)
    server: Json = {
        "listen": [settings.listen_http if settings.tls == "off" else settings.listen_https],
        "protocols": ["h1"] if settings.tls == "off" else ["h1", "h2", "h3"],
        "max_header_bytes": settings.max_header_kb << 10,
        "read_header_timeout": f"{settings.header_timeout_s:g}s",
        "idle_timeout": CLIENT_IDLE,
        "routes": [
            {"match": [{"host": [f"*.{settings.apps_domain}"]}], "handle": [hot], "terminal": True},
            {"handle": [ask_gate]},
        ],
        "errors": {
            "routes": [
                {
                    "match": [{"expression": '{http.error.message}.startsWith("dial unix ")'}],
                    "handle": [ask_gate],
                    "terminal": True,
                },
                _dropped(),
            ]
        },
    }
    apps: Json = {"http": {"servers": {"edge": server}, "grace_period": GRACE}}
    if settings.tls == "off":
        server["automatic_https"] = {"disable": True}
    else:
        server["tls_connection_policies"] = [{}]
        server["automatic_https"] = {"disable_certificates": True}
        apps["http"]["http_port"] = split_address(settings.listen_http)[1]
        apps["http"]["https_port"] = split_address(settings.listen_https)[1]
        apps["tls"] = _tls(settings, ask_port)
        apps["http"]["servers"]["plain"] = _redirects(settings)
    return {
        "admin": {"disabled": True, "config": {"persist": False}},
        "storage": {"module": "file_system", "root": str(settings.data_dir / "caddy")},
        # One line for each request that meets no socket would fill the log with strangers' typing errors.
        "logging": {
            "logs": {"default": {"level": "WARN", "exclude": ["http.log.error", "http.handlers.reverse_proxy"]}}
        },
        "apps": apps,
    }


def _dropped() -> Json:
    """An error route: the page for a program that hung up."""
    page = pages.dropped()
    return {
        "match": [{"expression": "{http.error.status_code} in [502, 503, 504]"}],
        "handle": [
            {
                "handler": "static_response",
                "status_code": page.status,
                "headers": {name: [value] for name, value in page.headers},
                "body": page.body().decode(),
            }
        ],
    }


def _proxy(dial: str) -> Json:
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": dial}],
        "transport": {
            "protocol": "http",
            "versions": ["1.1"],
            "dial_timeout": "5s",
            "compression": False,
            "keep_alive": {"enabled": True, "idle_timeout": KEEP_ALIVE, "max_idle_conns_per_host": 256},
        },
        # Tried again when nobody took the request, and a GET also when the connection broke before the answer (the VM
        # fell asleep at that moment): GETs may be repeated (RFC 9110, 9.2.2), others are not.
        "load_balancing": {"retries": 2},
        "headers": {"request": {"delete": [TOKEN_HEADER]}},
    }


def _ask_gate(gate: Path) -> Json:
    """The request's headers to the gate; 2xx from it sends the request itself on."""
    # A subroute, because an error in here would not come to the server's own error routes: we are in one.
    named: Json = {
        "handler": "subroute",
        "routes": [{"handle": [_proxy(f"unix/{{http.reverse_proxy.header.{SOCKET_HEADER}}}")]}],
        "errors": {"routes": [_dropped()]},
    }
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"unix/{gate}"}],
        "transport": {"protocol": "http", "versions": ["1.1"], "dial_timeout": "5s", "compression": False},
        "rewrite": {"method": "GET", "uri": "/gate"},
        "headers": {
            "request": {
                "set": {"X-Forwarded-Uri": ["{http.request.orig_uri}"]},
                "delete": ["Upgrade", "Connection", "Expect"],
            }
        },
        "handle_response": [
            {
                "match": {"status_code": [2], "headers": {SOCKET_HEADER: ["*"]}},
                "routes": [{"handle": [named]}],
            }
        ],
    }


def _tls(settings: Settings, ask_port: int) -> Json:
    issuer: Json = {"module": "internal"}
    if settings.tls == "acme":
        issuer = {"module": "acme", "email": settings.acme_email}
        if settings.acme_directory:
            issuer["ca"] = settings.acme_directory
        # The challenges come to our own listeners; Caddy must know them, or it would listen on all addresses as well.
        (host, http_port), (_, https_port) = split_address(settings.listen_http), split_address(settings.listen_https)
        issuer["challenges"] = {
            "bind_host": host,
            "http": {"alternate_port": http_port},
            "tls-alpn": {"alternate_port": https_port},
        }
        if settings.acme_root is not None:
            issuer["trusted_roots_pem_files"] = [str(settings.acme_root)]
    return {
        "automation": {
            "on_demand": {"permission": {"module": "http", "endpoint": f"http://127.0.0.1:{ask_port}/ask"}},
            "policies": [{"on_demand": True, "issuers": [issuer]}],
        }
    }


def _redirects(settings: Settings) -> Json:
    """Plain HTTP when there is TLS: ACME's challenges (Caddy answers them first), and the way to HTTPS."""
    port = split_address(settings.listen_https)[1]
    suffix = "" if port == 443 else f":{port}"
    return {
        "listen": [settings.listen_http],
        "protocols": ["h1"],
        "max_header_bytes": settings.max_header_kb << 10,
        "read_header_timeout": f"{settings.header_timeout_s:g}s",
        "automatic_https": {"disable_certificates": True, "disable_redirects": True},
        "routes": [
            {
                "handle": [
                    {
                        "handler": "static_response",
                        "status_code": 308,
                        "headers": {"Location": [f"https://{{http.request.host}}{suffix}{{http.request.uri}}"]},
                    }
                ]
            }
        ],
    }


def child(settings: Settings, config: Json) -> Child:
    """Caddy, not yet started. Ready when it answers our health path (through it, the gate does)."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.data_dir / "caddy.json"
    write_atomic(path, json.dumps(config, indent=1).encode())
    listen = settings.listen_http
    host, port = split_address(listen)

    async def ready() -> bool:
        return await _healthy("127.0.0.1" if host == "0.0.0.0" else host, port)

    return Child(
        "caddy",
        [find("caddy"), "run", "--config", path],
        log_file=settings.data_dir / "log" / "caddy.log",
        ready=ready,
        env={"HOME": str(settings.data_dir), "PATH": "/usr/bin:/bin"},
    )


async def _healthy(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {HEALTH_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                status = (await reader.readline()).split(b" ")
                return len(status) > 1 and status[1] in (b"200", b"308")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
