"""Requests to hosts from the machine's own commands."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import nats.errors
from nats.aio.client import Client

from mags.protocol import messages as m
from mags.protocol import subjects
from mags.protocol.errors import Problem
from mags.supervisor import broker
from mags.supervisor.layout import Layout
from mags.supervisor.lock import read_record
from mags.supervisor.presence import PresenceWatch

T = TypeVar("T")


class NotUp(Exception):
    """There is no server of that data directory; the sentence says so."""


async def ask(client: Client, host_id: str, verb: str, wish: m.Value, kind: type[T], *, timeout: float) -> T:
    """One request, `timeout` in seconds. Raises the Problem that the host answers, or one for no answer."""
    try:
        answer = await client.request(subjects.rpc(host_id, verb), m.encode(wish), timeout=timeout)
    except nats.errors.NoRespondersError as error:
        raise Problem("unavailable", f"Host {host_id} does not answer.") from error
    except (TimeoutError, nats.errors.Error) as error:
        raise Problem("outcome_unknown", f"Host {host_id} did not answer in time.") from error
    return m.open_answer(answer.data, kind)


async def ask_local_host(data_dir: Path, verb: str, wish: m.Value, kind: type[T], *, timeout: float) -> T:
    """The same of the host that `mags up` runs for that data directory. Problem, or NotUp."""
    layout = Layout(data_dir)
    record = read_record(layout)
    if record is None:
        raise NotUp(f"Mags is not up (in {data_dir}). Start it with `mags up`.")
    host_id = str(record["host_id"])
    url = broker.url("supervisor", broker.passwords(layout.nats_users), str(record["nats"]))
    watch = PresenceWatch(url, host_id)
    await watch.start()
    try:
        await watch.heard(timeout=10)
        return await ask(watch.client, host_id, verb, wish, kind, timeout=timeout)
    except TimeoutError as error:
        raise Problem("unavailable", "The host has not spoken for 10 s. See `mags pool`.") from error
    finally:
        await watch.stop()
