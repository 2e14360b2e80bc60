"""What the SDK raises.

MagsError                   status_code, code, details; str() is one sentence that says what to do
├── NotConfigured           no token, or an address that is none; nothing was sent
├── NotReachable            no answer: no server there, or the connection was lost
├── WaitTimeout             it did not come to its end in the time given (also a TimeoutError)
├── TransferFailed          a stream broke off, or carried what it must not
├── InvalidRequest          400, 413, 422: the request can't be done as it is
├── NotAuthorized           401, 403: no token, a bad one, or not yours to do
├── NotFound                404, 410: unknown, or no more
├── Conflict                409: not in the present state, or not on this installation
└── ServerFailed            5xx: the platform could not do it
    └── Busy                429, 503: safe to try again after `retry_after` seconds

`code` is the stable word of the server (see mags.protocol.errors for the list), None where no server spoke.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class MagsError(Exception):
    """Base of all. `status_code` is the HTTP status, None when there was no answer."""

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        self.details: dict[str, Any] = dict(details or {})


class NotConfigured(MagsError):
    pass


class NotReachable(MagsError):
    pass


class WaitTimeout(MagsError, TimeoutError):
    pass


class TransferFailed(MagsError):
    pass


class InvalidRequest(MagsError):
    pass


class NotAuthorized(MagsError):
    pass


class NotFound(MagsError):
    pass


class Conflict(MagsError):
    pass


class ServerFailed(MagsError):
    pass


class Busy(ServerFailed):
    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server would like to be asked again; None when it did not say."""
        value = self.details.get("retry_after")
        return float(value) if isinstance(value, int | float) else None


_BY_STATUS: dict[int, type[MagsError]] = {
    401: NotAuthorized,
    403: NotAuthorized,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    429: Busy,
    503: Busy,
}


def from_answer(status: int, body: object, retry_after: str | None = None) -> MagsError:
    """The error for an answer of `status` >= 400 whose decoded JSON body (or text) is `body`."""
    message, code, details = "", None, {}
    if isinstance(body, dict):
        message = str(body.get("error") or body.get("message") or "")
        code = body.get("code") if isinstance(body.get("code"), str) else None
        details = dict(body["details"]) if isinstance(body.get("details"), dict) else {}
    elif isinstance(body, str):
        message = body.strip()[:500]
    if retry_after is not None and retry_after.isdigit():
        details.setdefault("retry_after", int(retry_after))
    kind = _BY_STATUS.get(status) or (ServerFailed if status >= 500 else InvalidRequest)
    return kind(message or f"The server answered {status} and gave no reason.", status, code=code, details=details)
