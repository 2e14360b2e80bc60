"""The problems that control itself states, each in one place so that their sentences stay the same."""

from __future__ import annotations

from mags.protocol.errors import Problem


def not_found(what: str, name: str) -> Problem:
    """Unknown, or somebody else's: the two are not told apart."""
    return Problem("not_found", f"There is no {what} {name[:128]!r}.")


def no_storage(trouble: str = "") -> Problem:
    reason = f" ({trouble})" if trouble else ""
    return Problem(
        "not_available",
        f"No host can keep synced workspaces now{reason}. Use no_sync (`--no-sync`) to keep files on the VM's disk.",
    )


def no_capacity(reason: str, *, retry_after: int = 5) -> Problem:
    return Problem("no_capacity", reason, retry_after=retry_after)


def invalid(field: str, sentence: str) -> Problem:
    """One value that can't be, in the form of a validation error."""
    return Problem("invalid", f"{field}: {sentence}", fields={field: sentence})
