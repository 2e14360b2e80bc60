"""Values, their encoding (MessagePack), and the answer to a request."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from mags.protocol.errors import STATUS, Problem

T = TypeVar("T")


class Value(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Base of every message."""


class Answer(Value):
    """`result` is the verb's result, encoded; else `code` and `message` say what was wrong."""

    result: msgspec.Raw = msgspec.Raw()
    code: str | None = None
    message: str = ""
    details: dict[str, Any] = {}


_encoder = msgspec.msgpack.Encoder()


def encode(value: Value) -> bytes:
    """MessagePack bytes of any message."""
    return _encoder.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """The message of `kind`; Problem(bad_request) when the bytes are not one."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Problem("bad_request", f"This is not a valid {getattr(kind, '__name__', kind)}: {error}.") from error


def answer(result: Value) -> bytes:
    """An encoded positive `Answer`."""
    return _encoder.encode(Answer(result=msgspec.Raw(_encoder.encode(result))))


def refusal(problem: Problem) -> bytes:
    """An encoded negative `Answer`."""
    return _encoder.encode(Answer(code=problem.code, message=problem.message, details=problem.details))


def open_answer(data: bytes, kind: type[T]) -> T:
    """The result inside an `Answer`; raises the problem that it carries."""
    got = decode(data, Answer)
    if got.code is not None:
        code = got.code if got.code in STATUS else "internal"
        raise Problem(code, got.message, **got.details)
    raw = bytes(got.result)
    if not raw:
        raise Problem("internal", "The host answered nothing.")
    return decode(raw, kind)
