"""One finding about this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and how it is.

    name: a few words, the same on every machine. ok: True; False where Mags cannot run until it is put right; None
    where it runs, but slower, less safely, or without a part. detail: what was found. advice: what to do; empty when
    there is nothing to do.
    """

    name: str
    ok: bool | None
    detail: str
    advice: str = ""
