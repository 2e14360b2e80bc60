"""What comes to a machine's driver, one after the other. Wishes were judged before (see `wishes`)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mags.protocol.errors import Problem
from mags.protocol.messages import Keep, Script, Started


@dataclass(frozen=True, slots=True)
class Run:
    """A wish: give the guest a script."""

    script: Script
    answer: asyncio.Future[Started]
    keep: Keep | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """A wish: end one script."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A wish: end the VM."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """News: a script has ended, and control knows."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Died:
    """News: the VM is gone, or can't be used any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """A wish, or news that the VM is idle: put it to sleep."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """News: all is done that can be before the VM falls asleep; or what stands against it."""

    problem: Problem | None


@dataclass(frozen=True, slots=True)
class Wake:
    """A wish: somebody waits for the VM."""


Item = Run | Cancel | Stop | Ended | Died | Sleep | Prepared | Wake
