"""What hosts report, recorded: one durable consumer of MAGS_EVENTS, read by one control at a time.

A single reader keeps each host's events in their order (a sync before the end of its VM). When it dies, another control
finds the consumer free within two seconds and goes on. Events are recorded in batches, one transaction each, and
acknowledged afterwards; everything may come twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.lifecycles.barrier import DURABLE
from mags.control.lifecycles.endings import Effects
from mags.control.lifecycles.reports import job_ended, vm_changed, workspace_synced
from mags.control.lifecycles.world import World
from mags.kit.nats import Stream, ensure_stream
from mags.protocol import messages, subjects
from mags.protocol.messages import Event, JobEnded, VmChanged

log = logging.getLogger("mags.control.events")

BATCH = 64
STANDBY = 2.0
"""Seconds between two looks whether the consumer is free, or still there."""
ACK_WAIT = 5.0
"""Seconds after which what a reader that died has not acknowledged goes to the next one."""
MAX_UNACKED = 512

STREAMS = (
    Stream(
        subjects.EVENTS_STREAM,
        [subjects.EVENTS],
        max_age_s=subjects.EVENTS_MAX_AGE_S,
        max_bytes=subjects.EVENTS_MAX_BYTES,
    ),
    Stream(
        subjects.OUTPUT_STREAM,
        [subjects.OUTPUTS],
        max_age_s=subjects.OUTPUT_MAX_AGE_S,
        max_bytes=subjects.OUTPUT_MAX_BYTES,
    ),
)


async def ensure_streams(world: World) -> None:
    for stream in STREAMS:
        await ensure_stream(world.jetstream, stream)


async def consume(world: World) -> None:
    """Read events for ever (until cancelled), whenever this control is the reader."""
    while True:
        try:
            await _read_while_free(world)
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
            log.info("events can't be read now (%s); trying again", error)
        await asyncio.sleep(STANDBY)


async def _read_while_free(world: World) -> None:
    try:
        info = await world.jetstream.consumer_info(subjects.EVENTS_STREAM, DURABLE)
    except NotFoundError:
        await ensure_streams(world)
        info = await world.jetstream.add_consumer(
            subjects.EVENTS_STREAM,
            ConsumerConfig(
                durable_name=DURABLE,
                deliver_subject=subjects.EVENTS_DELIVERY,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT,
                max_ack_pending=MAX_UNACKED,
            ),
        )
    if info.push_bound:
        return
    queue: asyncio.Queue[Msg] = asyncio.Queue()
    subscription = await world.connection.subscribe(subjects.EVENTS_DELIVERY, cb=queue.put)
    try:
        while True:
            try:
                async with asyncio.timeout(5 * STANDBY):
                    batch = [await queue.get()]
            except TimeoutError:
                await world.jetstream.consumer_info(subjects.EVENTS_STREAM, DURABLE)  # still there?
                continue
            while len(batch) < BATCH and not queue.empty():
                batch.append(queue.get_nowait())
            await _record(world, batch)
    finally:
        if not world.connection.is_closed:
            await subscription.unsubscribe()


async def _record(world: World, batch: Sequence[Msg]) -> None:
    """Record a batch in one transaction; when that fails, each event by itself, so that one can't hold up the rest."""
    pairs: list[tuple[Msg, Event]] = []
    for message in batch:
        try:
            pairs.append((message, messages.decode_event(message.data)))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            log.error("an event on %s can't be read and is dropped: %s", message.subject, error)
            await message.ack()
    if not pairs:
        return
    try:
        await _record_together(world, [event for _, event in pairs])
    except Exception:
        if len(pairs) == 1:
            log.exception("an event could not be recorded; it comes again")
            await asyncio.sleep(1.0)
            await pairs[0][0].nak(delay=5)
            return
        for pair in pairs:
            await _record(world, [pair[0]])
        return
    for message, _ in pairs:
        await message.ack()


async def _record_together(world: World, events: Sequence[Event]) -> None:
    effects = Effects()
    async with world.db.write() as session:
        for event in events:
            await _record_one(session, event, effects)
    await effects.apply(world)


async def _record_one(session: AsyncSession, event: Event, effects: Effects) -> None:
    if isinstance(event, JobEnded):
        await job_ended(session, event, effects)
    elif isinstance(event, VmChanged):
        await vm_changed(session, event, effects)
    else:
        await workspace_synced(session, event, effects)
