"""Mags runs scripts in instant microVMs.

    from mags import Mags

    m = Mags()
    print(m.run_and_wait("echo hello")["logs"])

The names of `__all__` are the public SDK (docs/sdk.md), imported when they are first used; everything else of the
package belongs to the server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mags.sdk.async_client import AsyncMags
    from mags.sdk.async_process import AsyncProcess
    from mags.sdk.async_sandbox import AsyncSandbox
    from mags.sdk.client import Mags
    from mags.sdk.errors import (
        Busy,
        Conflict,
        InvalidRequest,
        MagsError,
        NotAuthorized,
        NotConfigured,
        NotFound,
        NotReachable,
        ServerFailed,
        TransferFailed,
        WaitTimeout,
    )
    from mags.sdk.process import Process
    from mags.sdk.sandbox import Sandbox
    from mags.sdk.testing import MockTransport

__version__ = "0.1.0"

__all__ = [
    "AsyncMags",
    "AsyncProcess",
    "AsyncSandbox",
    "Busy",
    "Conflict",
    "InvalidRequest",
    "Mags",
    "MagsError",
    "MockTransport",
    "NotAuthorized",
    "NotConfigured",
    "NotFound",
    "NotReachable",
    "Process",
    "Sandbox",
    "ServerFailed",
    "TransferFailed",
    "WaitTimeout",
    "__version__",
]

_HOMES = {
    "AsyncMags": "async_client",
    "AsyncProcess": "async_process",
    "AsyncSandbox": "async_sandbox",
    "Mags": "client",
    "MockTransport": "testing",
    "Process": "process",
    "Sandbox": "sandbox",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mags' has no attribute {name!r}")
    return getattr(import_module(f"mags.sdk.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
