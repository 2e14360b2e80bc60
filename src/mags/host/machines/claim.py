"""One host program for each name. Two that answer for one would share requests, VMs and workspaces between them."""

from __future__ import annotations

import logging

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from mags.kit.nats import settle
from mags.protocol import subjects

log = logging.getLogger(__name__)

ANSWER_S = 2.0
"""An earlier program of ours that is cut off, but not yet forgotten by NATS, does not answer."""


class NameTaken(Exception):
    """The sentence says what to set."""


async def claim(client: Client, host_id: str) -> None:
    """The name is ours from now on, for as long as the client lives. NameTaken when a living program has it."""
    subject = subjects.claim(host_id)
    try:
        await client.request(subject, b"", timeout=ANSWER_S)
    except nats.errors.NoRespondersError:
        pass
    except (nats.errors.TimeoutError, TimeoutError):
        log.warning("somebody else listens under the name %s, and does not answer", host_id)
    else:
        raise NameTaken(
            f"Another host program is called {host_id}: give each its own name (MAGS_HOST_HOST_ID), and each its own "
            "data directory."
        )

    async def answer(message: Msg) -> None:
        await message.respond(b"")

    await client.subscribe(subject, cb=answer)
    await settle(client)
