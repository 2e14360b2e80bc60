"""What can go wrong between a user, control and a host, as one value.

A `Problem` crosses every boundary: as the body of an HTTP error (`error`, `code`, `details`) and as the answer of a
host over NATS. `code` is stable and meant for programs; the sentence is meant for a person and says what to do.

| code               | status | when                                                        |
|--------------------|--------|-------------------------------------------------------------|
| bad_request        | 400    | the request can't be read                                   |
| unauthorized       | 401    | no token, or one that is not valid                          |
| forbidden          | 403    | not yours to do                                             |
| not_found          | 404    | unknown, or somebody else's                                 |
| conflict           | 409    | not in the present state                                    |
| not_available      | 409    | this installation can't do it                               |
| gone               | 410    | it was, and is no more                                      |
| too_large          | 413    | over a limit of size                                        |
| invalid            | 422    | a value that can't be                                       |
| rate_limited       | 429    | too many; details.retry_after in seconds                    |
| internal           | 500    | a defect of ours                                            |
| guest_failed       | 502    | the VM did not answer as it should                          |
| no_capacity        | 503    | no host can take it now; details.retry_after in seconds     |
| unavailable        | 503    | a part of the platform is down; safe to try again           |
| outcome_unknown    | 504    | it was sent and nothing came back: it may have happened     |
"""

from __future__ import annotations

from typing import Any

STATUS: dict[str, int] = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "not_available": 409,
    "gone": 410,
    "too_large": 413,
    "invalid": 422,
    "rate_limited": 429,
    "internal": 500,
    "guest_failed": 502,
    "no_capacity": 503,
    "unavailable": 503,
    "outcome_unknown": 504,
}


class Problem(Exception):
    """One error of the table above. `details` holds JSON values only."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        if code not in STATUS:
            raise ValueError(f"unknown problem code {code!r}")
        super().__init__(message)
        self.code, self.message, self.details = code, message, details

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return STATUS[self.code]

    def body(self) -> dict[str, Any]:
        """The JSON body of an HTTP error."""
        return {"error": self.message, "code": self.code, "details": self.details}
