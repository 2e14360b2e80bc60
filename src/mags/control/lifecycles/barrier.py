"""Waiting until everything that hosts have reported so far is in the records.

A host's answer and its events travel apart. Before a workspace is handed to another VM, or a VM that a host no longer
knows is declared lost, the events it sent before must have been recorded: its last sync, its jobs' ends.
"""

from __future__ import annotations

import asyncio

import nats.errors
from nats.js.errors import Error as JetStreamError

from mags.control.lifecycles.world import World
from mags.protocol import subjects
from mags.protocol.errors import Problem

DURABLE = "control"
"""The consumer of events that all controls share."""
TIMEOUT = 20.0


async def events_recorded(world: World) -> None:
    """Return once the events that are in the stream now are recorded; Problem(unavailable) after 20 s."""
    try:
        async with asyncio.timeout(TIMEOUT):
            last = (await world.jetstream.stream_info(subjects.EVENTS_STREAM)).state.last_seq
            delay = 0.002
            while True:
                info = await world.jetstream.consumer_info(subjects.EVENTS_STREAM, DURABLE)
                floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0
                if (floor or 0) >= last or (not info.num_pending and not info.num_ack_pending):
                    return
                await asyncio.sleep(delay)
                delay = min(0.2, delay * 2)
    except (TimeoutError, nats.errors.Error, JetStreamError) as error:
        raise Problem("unavailable", "The events of hosts could not be read in time; try again.") from error
