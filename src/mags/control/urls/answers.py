"""What edges ask, answered over NATS: whose VM a name leads to, whether a key or token opens it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from sqlalchemy import select

from mags.control.http.callers import Authenticator
from mags.control.lifecycles.world import World
from mags.control.models import Alias, Job, SshPort
from mags.control.records.jobs import led_to
from mags.control.urls.names import resolve, split_name
from mags.control.urls.ssh import authorise
from mags.protocol import edge, messages
from mags.protocol.errors import Problem
from mags.protocol.messages import Value

log = logging.getLogger("mags.control.edges")


class EdgeAnswers:
    """Answers of this control, one of the queue group."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._authenticator = Authenticator(world.db)
        self._subscription: Subscription | None = None
        self._verbs: dict[str, Callable[[bytes], Awaitable[Value]]] = {
            edge.RESOLVE: self._resolve,
            edge.ASK: self._ask,
            edge.URL_AUTH: self._url_auth,
            edge.SSH_AUTH: self._ssh_auth,
            edge.SSH_PORTS: self._ssh_ports,
        }

    async def start(self) -> None:
        self._subscription = await self._world.connection.subscribe(
            edge.CONTROL, queue=edge.CONTROL_QUEUE, cb=self._on_message
        )

    async def stop(self) -> None:
        if self._subscription is not None and not self._world.connection.is_closed:
            await self._subscription.unsubscribe()
            self._subscription = None

    async def _on_message(self, message: Msg) -> None:
        self._world.spawn(self._answer(message), f"answer-{message.subject}")

    async def _answer(self, message: Msg) -> None:
        try:
            verb = self._verbs.get(message.subject)
            if verb is None:
                raise Problem("bad_request", f"Nobody answers {message.subject}.")
            payload = messages.answer(await verb(message.data))
        except Problem as problem:
            payload = messages.refusal(problem)
        except Exception:
            log.exception("no answer to %s", message.subject)
            payload = messages.refusal(Problem("internal", "Something is wrong in control; its log has the details."))
        if message.reply:
            await self._world.connection.publish(message.reply, payload)

    async def _resolve(self, data: bytes) -> Value:
        return await resolve(self._world, messages.decode(data, edge.Resolve))

    async def _ask(self, data: bytes) -> Value:
        """Certificates are made only for names that exist, so that nobody can use up the authority's limits."""
        host = messages.decode(data, edge.Ask).host.lower().rstrip(".")
        label, _, domain = host.partition(".")
        if domain != self._world.settings.apps_domain:
            return edge.Asked(known=False)
        _, subdomain = split_name(label)
        async with self._world.db.read() as session:
            job = await session.execute(select(Job.id).where(Job.subdomain == subdomain))
            alias = await session.execute(select(Alias.id).where(Alias.subdomain == subdomain))
            known = job.scalar_one_or_none() is not None or alias.scalar_one_or_none() is not None
        return edge.Asked(known=known)

    async def _url_auth(self, data: bytes) -> Value:
        wish = messages.decode(data, edge.UrlAuth)
        try:
            caller = await self._authenticator.caller(wish.token)
        except Problem as problem:
            raise Problem("forbidden", problem.message) from problem
        _, subdomain = split_name(wish.subdomain.lower())
        async with self._world.db.read() as session:
            owner = (await session.execute(select(Job.owner_id).where(Job.subdomain == subdomain))).scalar_one_or_none()
            alias = (await session.execute(select(Alias).where(Alias.subdomain == subdomain))).scalar_one_or_none()
            if alias is not None and await led_to(session, alias.owner_id, alias.workspace) is not None:
                owner = alias.owner_id
        if owner != caller.user_id:
            raise Problem("forbidden", "This token does not open this address.")
        return messages.Done()

    async def _ssh_auth(self, data: bytes) -> Value:
        return await authorise(self._world, messages.decode(data, edge.SshAuth))

    async def _ssh_ports(self, data: bytes) -> Value:
        async with self._world.db.read() as session:
            rows = await session.execute(select(SshPort.port, SshPort.job_id))
            return edge.SshPorts(ports={int(port): str(job_id) for port, job_id in rows})
