"""What control knows, as an edge asks for it: whose a public name is, which keys open what. Remembered for seconds."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from mags.edge.tasks import Tasks
from mags.protocol import edge, messages
from mags.protocol.errors import Problem
from mags.protocol.messages import Value

log = logging.getLogger("mags.edge.directory")

T = TypeVar("T", bound=Value)

TIMEOUT = 5.0
"""Seconds that control has to answer."""
TRIES, PAUSE = 5, 0.4
"""How often an unanswered question is asked (control may be starting again), and seconds between."""
STARTING_PATIENCE, STARTING_PAUSE = 30.0, 0.25
"""Seconds that a request waits for a VM that is being placed, and between two questions (for all that wait)."""
REMEMBERED = 10_000
"""Answers that are kept at most."""
TOKEN_LIFETIME = 10.0
"""Seconds for which a token's good answer is kept."""


@dataclass(slots=True)
class _Kept:
    answer: edge.Resolved
    until: float


class ControlAway(Problem):
    """Control does not answer at all (it may be starting again)."""

    def __init__(self) -> None:
        super().__init__("unavailable", "The control program does not answer. Try again in a few seconds.")


class Directory:
    """Asks control over NATS. Every method raises Problem: control's own, or ControlAway."""

    def __init__(self, nats: Client) -> None:
        self._nats = nats
        self._names: dict[tuple[str, str | None], _Kept] = {}
        self._asking: dict[tuple[str, str | None], asyncio.Task[_Kept]] = {}
        self._tasks = Tasks()
        self._tokens: dict[tuple[str, bytes], float] = {}
        self._listeners: list[Callable[[edge.Changed], None]] = []

    async def start(self) -> None:
        """Begin to hear what changes."""
        await self._nats.subscribe(edge.CHANGED, cb=self._on_changed)

    async def aclose(self) -> None:
        await self._tasks.aclose()

    def on_changed(self, listener: Callable[[edge.Changed], None]) -> None:
        self._listeners.append(listener)

    async def resolve(self, name: str, domain: str | None = None, *, patience: float = 0.0) -> edge.Resolved:
        """Whose `name` is. Remembered as long as control allows, when it leads to a VM: one may come at any time where
        there is none, and nobody could say then under which aliases it had been asked for. A VM that is being placed is
        waited for, at most `patience` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            kept = await self._resolve((name, domain))
            if kept.answer.status != "starting" or loop.time() >= deadline:
                return kept.answer
            await asyncio.sleep(kept.until - loop.time())

    async def _resolve(self, key: tuple[str, str | None]) -> _Kept:
        kept = self._names.get(key)
        if kept is not None and kept.until > asyncio.get_running_loop().time():
            return kept
        asking = self._asking.get(key)
        if asking is None:  # many requests for one name are one question
            asking = self._asking[key] = self._tasks.start(self._learn(key))
        return await asyncio.shield(asking)

    async def _learn(self, key: tuple[str, str | None]) -> _Kept:
        name, domain = key
        me = asyncio.current_task()
        try:
            answer = await self._ask(edge.RESOLVE, edge.Resolve(name=name, domain=domain), edge.Resolved)
            lifetime = {"ok": answer.ttl_s, "starting": STARTING_PAUSE}.get(answer.status, 0.0)
            kept = _Kept(answer, asyncio.get_running_loop().time() + lifetime)
            if lifetime and self._asking.get(key) is me:  # else something has changed since it was asked
                if len(self._names) >= REMEMBERED:
                    self._names.clear()
                self._names[key] = kept
            return kept
        finally:
            if self._asking.get(key) is me:
                del self._asking[key]

    def forget(self, name: str, domain: str | None = None) -> None:
        self._names.pop((name, domain), None)
        self._asking.pop((name, domain), None)

    async def certificate_allowed(self, host: str) -> bool:
        """Whether a certificate may be had for this full name."""
        return (await self._ask(edge.ASK, edge.Ask(host=host), edge.Asked)).known

    async def token_opens(self, subdomain: str, token: str) -> bool:
        """Whether an API token opens a private URL."""
        now = asyncio.get_running_loop().time()
        key = (subdomain, hashlib.sha256(token.encode()).digest())
        if self._tokens.get(key, 0.0) > now:
            return True
        try:
            await self._ask(edge.URL_AUTH, edge.UrlAuth(subdomain=subdomain, token=token), messages.Done)
        except Problem as problem:
            if problem.code in ("forbidden", "unauthorized", "not_found"):
                return False
            raise
        if len(self._tokens) >= REMEMBERED:
            self._tokens.clear()
        self._tokens[key] = now + TOKEN_LIFETIME
        return True

    async def ssh_grant(self, user: str, public_key: str, port: int | None) -> edge.SshGrant:
        """What a key opens; see `edge.SshAuth` for the meaning of the problems."""
        return await self._ask(edge.SSH_AUTH, edge.SshAuth(user=user, public_key=public_key, port=port), edge.SshGrant)

    async def ssh_ports(self) -> dict[int, str]:
        """Own SSH ports of VMs -> job ids."""
        return (await self._ask(edge.SSH_PORTS, messages.Empty(), edge.SshPorts)).ports

    async def _ask(self, subject: str, question: Value, kind: type[T]) -> T:
        payload = messages.encode(question)
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(PAUSE)
            try:
                reply = await self._nats.request(subject, payload, timeout=TIMEOUT)
            except (nats.errors.Error, TimeoutError) as error:
                # No question here has an effect, so asking again is safe whatever became of the first.
                log.debug("no answer on %s: %r", subject, error)
                continue
            return messages.open_answer(reply.data, kind)
        raise ControlAway

    async def _on_changed(self, message: Msg) -> None:
        try:
            changed = messages.decode(message.data, edge.Changed)
        except Problem as problem:
            log.warning("%s: %s", edge.CHANGED, problem.message)
            return
        for key, kept in list(self._names.items()):
            named = kept.answer.subdomain or key[0]
            if named in changed.subdomains or key[0] in changed.subdomains or kept.answer.vm_id in changed.vms:
                del self._names[key]
        self._asking.clear()  # whose they are is not known yet: their answers may be of before
        for token in [key for key in self._tokens if key[0] in changed.subdomains]:
            del self._tokens[token]
        for listener in self._listeners:
            listener(changed)
