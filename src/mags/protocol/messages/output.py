"""A job's output, from its host to its readers (JetStream)."""

from __future__ import annotations

import msgspec

from mags.protocol.messages.codec import Value


class Output(Value, tag="output"):
    """Bytes of one stream: 1 stdout, 2 stderr, 3 the platform's own words. `offset` counts the stream's bytes."""

    stream: int
    offset: int
    data: bytes
    at_ms: int


class OutputEnd(Value, tag="end"):
    """Nothing follows. `exit_code` and `error` as in JobEnded."""

    exit_code: int | None = None
    error: str | None = None
    at_ms: int = 0


OutputMessage = Output | OutputEnd

_outputs: msgspec.msgpack.Decoder[OutputMessage] = msgspec.msgpack.Decoder(OutputMessage)


def decode_output(data: bytes) -> OutputMessage:
    return _outputs.decode(data)
