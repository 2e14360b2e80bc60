"""NATS subjects and JetStream streams: who speaks where.

| subject                        | from -> to       | what                                                      |
|--------------------------------|------------------|-----------------------------------------------------------|
| mags.host.HOST.rpc.VERB        | control -> host  | requests (`messages.Request`), answered (`messages.Answer`) |
| mags.presence.HOST             | host -> all      | `messages.Presence`, every 2 s                            |
| mags.claim.HOST                | host -> host     | whether somebody has that name; who has it answers        |
| mags.session.SESSION.in / .out | client <-> host  | frames of a streaming session (`messages.Frame`)          |
| mags.event.HOST                | host -> control  | `messages.Event`, stream MAGS_EVENTS                      |
| mags.output.JOB                | host -> readers  | `messages.Output`, stream MAGS_OUTPUT                     |
"""

from __future__ import annotations

EVENTS_STREAM = "MAGS_EVENTS"
OUTPUT_STREAM = "MAGS_OUTPUT"
EVENTS = "mags.event.*"
OUTPUTS = "mags.output.*"
PRESENCE = "mags.presence.*"
EVENTS_DELIVERY = "mags.delivery.events"
"""Where JetStream hands the events to the control that reads them."""

EVENTS_MAX_AGE_S = 7 * 86400.0
EVENTS_MAX_BYTES = 256 << 20
OUTPUT_MAX_AGE_S = 7 * 86400.0
OUTPUT_MAX_BYTES = 4 << 30
"""How long, and how much of it, the streams keep. Every program that makes a stream makes it so."""

OUTPUT_POSITION = "Mags-Position"
"""Header of a message of output: `STDOUT,STDERR,SYSTEM`, the bytes of each stream up to and with this message. The last
message of a job so says where a restarted host goes on."""

MAX_PAYLOAD = 24 << 20
"""Bytes of one NATS message that our servers allow: an exec's whole answer (10 MiB a stream) fits."""


def rpc(host_id: str, verb: str) -> str:
    return f"mags.host.{host_id}.rpc.{verb}"


def presence(host_id: str) -> str:
    return f"mags.presence.{host_id}"


def claim(host_id: str) -> str:
    return f"mags.claim.{host_id}"


def event(host_id: str) -> str:
    return f"mags.event.{host_id}"


def output(job_id: str) -> str:
    return f"mags.output.{job_id}"


def session_in(session_id: str) -> str:
    return f"mags.session.{session_id}.in"


def session_out(session_id: str) -> str:
    return f"mags.session.{session_id}.out"
