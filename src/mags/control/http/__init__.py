"""What all features share of HTTP: who asks, bodies, answers, problems."""

from __future__ import annotations

from mags.control.http.answers import Json, problem_answer
from mags.control.http.bodies import Body, View, WarningView, with_warnings
from mags.control.http.callers import Authenticator, Keeper, Reader, Writer
from mags.control.http.context import TheWorld, the_once
from mags.control.http.paths import Reference

__all__ = [
    "Authenticator",
    "Body",
    "Json",
    "Keeper",
    "Reader",
    "Reference",
    "TheWorld",
    "View",
    "WarningView",
    "Writer",
    "problem_answer",
    "the_once",
    "with_warnings",
]
