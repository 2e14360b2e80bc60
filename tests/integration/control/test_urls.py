"""Ways in from outside: access, aliases, and what edges are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from mags.control.records import public_keys
from mags.control.urls.access import KEYS_KEPT
from mags.hostclient import HostClient
from mags.kit.nats import settle
from mags.protocol import edge, messages
from mags.protocol.errors import Problem
from mags.protocol.messages import Value
from tests.integration.control.conftest import TOKEN, Installation, alone, client

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T", bound=Value)
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


class Edge:
    """What control hears of an edge, and says to it."""

    def __init__(self, mags: Installation) -> None:
        self._mags = mags
        self.changed: list[edge.Changed] = []
        self.listening: list[edge.Listen] = []

    async def start(self) -> None:
        await self._mags.nats.subscribe(edge.DESCRIBE, cb=self._describe)
        await self._mags.nats.subscribe(edge.LISTEN, cb=self._listen)
        await self._mags.nats.subscribe(edge.CHANGED, cb=self._changed)
        await settle(self._mags.nats)

    async def _describe(self, message: Msg) -> None:
        await message.respond(messages.answer(edge.EdgeInfo(ssh_host_key=HOST_KEY)))

    async def _listen(self, message: Msg) -> None:
        self.listening.append(messages.decode(message.data, edge.Listen))
        await message.respond(messages.answer(messages.Done()))

    async def _changed(self, message: Msg) -> None:
        self.changed.append(messages.decode(message.data, edge.Changed))

    async def ask(self, subject: str, wish: Value, kind: type[T]) -> T:
        return await HostClient(self._mags.nats).ask(subject, wish, kind, timeout=30, who="Control")

    async def resolve(self, name: str, domain: str | None = None) -> edge.Resolved:
        return await self.ask(edge.RESOLVE, edge.Resolve(name=name, domain=domain), edge.Resolved)

    async def hears_of(self, subdomain: str) -> None:
        async with asyncio.timeout(60):
            while not any(subdomain in change.subdomains for change in self.changed):
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(mags: Installation) -> AsyncIterator[Edge]:
    made = Edge(mags)
    await made.start()
    yield made


async def sandbox(mags: Installation, name: str, **fields: Any) -> dict[str, Any]:
    await mags.host()
    await mags.submit("sleep infinity", persistent=True, name=name, **fields)
    return await mags.reaches(name, "running")


async def access(mags: Installation, reference: str, **body: Any) -> dict[str, Any]:
    answer = await mags.api.post(f"/mags-jobs/{reference}/access", json=body)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert isinstance(made, dict)
    return made


async def test_a_url_asked_for_at_submission_leads_to_the_vm(mags: Installation, gateway: Edge) -> None:
    body = await sandbox(mags, "web", url=True, port=3000)
    assert body["url"] == f"http://{body['subdomain']}.apps.localhost:4281"
    found = await gateway.resolve(body["subdomain"])
    assert (found.status, found.vm_id, found.host_id, found.port) == ("ok", body["vm_id"], "h1", 3000)
    assert found.name == "web" and not found.private and found.secret == ""


async def test_ports_are_opened_and_closed_one_by_one(mags: Installation, gateway: Edge) -> None:
    body = await sandbox(mags, "ports")
    first = await access(mags, "ports", port=8080)
    assert first["success"] and first["url"] == f"http://{first['subdomain']}.apps.localhost:4281"
    second = await access(mags, "ports", port=9000)
    assert second["url"] == f"http://9000-{first['subdomain']}.apps.localhost:4281"
    subdomain = first["subdomain"]
    assert (await gateway.resolve(subdomain)).port == 8080
    assert (await gateway.resolve(f"9000-{subdomain}")).status == "ok"
    assert (await gateway.resolve(f"9001-{subdomain}")).status == "closed"
    gateway.changed.clear()
    assert (await mags.api.delete("/mags-jobs/ports/access?port=8080")).status_code == 200
    await gateway.hears_of(subdomain)
    assert (await gateway.resolve(f"8080-{subdomain}")).status == "closed"
    assert (await gateway.resolve(subdomain)).port == 9000, "the bare name leads to what is left"
    assert (await mags.api.delete("/mags-jobs/ports/access?port=8080")).status_code == 404
    await mags.api.post("/mags-jobs/ports/stop")
    assert (await gateway.resolve(subdomain)).status == "stopped"
    assert body["status"] == "running"


async def test_a_private_url_opens_by_a_signed_link_or_a_token_of_its_owner(mags: Installation, gateway: Edge) -> None:
    await sandbox(mags, "private")
    made = await access(mags, "private", port=8080, private=True)
    found = await gateway.resolve(made["subdomain"])
    assert found.private and found.secret
    key = made["signed_url"].partition(f"{edge.LINK_PARAMETER}=")[2]
    assert edge.check_link(found.secret, key)
    await gateway.ask(edge.URL_AUTH, edge.UrlAuth(subdomain=made["subdomain"], token=TOKEN), messages.Done)
    for token in ("nope", "mags_test_" + "b" * 32):
        with pytest.raises(Problem) as refused:
            await gateway.ask(edge.URL_AUTH, edge.UrlAuth(subdomain=made["subdomain"], token=token), messages.Done)
        assert refused.value.code == "forbidden"
    again = await access(mags, "private", port=8080, private=False)
    assert "signed_url" not in again and not (await gateway.resolve(made["subdomain"])).private
    await access(mags, "private", port=8080, private=True)
    rotated = await gateway.resolve(made["subdomain"])
    assert not edge.check_link(rotated.secret, key), "old links are void"


async def test_only_open_persistent_jobs_can_be_reached(mags: Installation) -> None:
    await mags.host()
    body = await mags.run("true")
    answer = await mags.api.post(f"/mags-jobs/{body['request_id']}/access", json={"port": 8080})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    for port in (0, 70000, "80"):
        assert (await mags.api.post("/mags-jobs/web/access", json={"port": port})).status_code == 422


async def test_unknown_names_and_other_domains_lead_nowhere(gateway: Edge) -> None:
    assert (await gateway.resolve("nothing-there")).status == "unknown"
    assert (await gateway.resolve("web", "other.example")).status == "unknown"


async def test_an_alias_follows_its_workspace(mags: Installation, gateway: Edge) -> None:
    body = {"subdomain": "My-App", "workspace_id": "site", "domain": "apps.magpiecloud.com"}
    answer = await mags.api.post("/mags-url-aliases", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["subdomain"], made["url"]) == ("my-app", "http://my-app.apps.localhost:4281")
    assert "apps.localhost" in made["warnings"][0]
    assert (await gateway.resolve("my-app")).status == "unknown"
    first = await sandbox(mags, "site-1", workspace_id="site", no_sync=True)
    assert (await gateway.resolve("my-app")).vm_id == first["vm_id"]
    assert (await gateway.resolve("3000-my-app")).status == "closed"
    await mags.api.post("/mags-jobs/site/stop")
    assert (await gateway.resolve("my-app")).status == "stopped"
    second = await sandbox(mags, "site-2", workspace_id="site", no_sync=True)
    found = await gateway.resolve("my-app")
    assert (found.vm_id, found.port, found.subdomain) == (second["vm_id"], 8080, "my-app")
    gateway.changed.clear()
    await access(mags, "site", port=8080, private=True)
    await gateway.hears_of("my-app")
    assert (await gateway.resolve("my-app")).private
    gateway.changed.clear()
    assert (await mags.api.delete("/mags-jobs/site/access?port=8080")).status_code == 200
    await gateway.hears_of("my-app")
    assert (await gateway.resolve("my-app")).status == "closed", "what was private is not open to all once it is closed"
    await mags.api.post("/mags-jobs/site/stop")
    third = await sandbox(mags, "site-3", workspace_id="site", no_sync=True)
    found = await gateway.resolve("my-app")
    assert (found.status, found.vm_id, found.private) == ("ok", third["vm_id"], False), "a new VM begins open"
    assert (await mags.api.get("/mags-url-aliases")).json()["total"] == 1
    assert (await mags.stranger.get("/mags-url-aliases")).json()["total"] == 0
    assert (await mags.stranger.post("/mags-url-aliases", json=body)).status_code == 409
    assert (await mags.stranger.delete("/mags-url-aliases/my-app")).status_code == 404
    assert (await mags.api.delete("/mags-url-aliases/MY-APP")).status_code == 200
    assert (await gateway.resolve("my-app")).status == "unknown"


async def test_an_alias_leads_to_a_sandbox_without_a_workspace_by_its_name(mags: Installation, gateway: Edge) -> None:
    await mags.api.post("/mags-url-aliases", json={"subdomain": "named", "workspace_id": "booth"})
    named = await sandbox(mags, "booth")
    assert (await gateway.resolve("named")).vm_id == named["vm_id"]
    # What has the workspace goes before what has only the name, when both are up.
    placed = await sandbox(mags, "booth-2", workspace_id="booth", no_sync=True)
    assert (await gateway.resolve("named")).vm_id == placed["vm_id"]
    await mags.api.post("/mags-jobs/booth-2/stop")
    assert (await gateway.resolve("named")).vm_id == named["vm_id"]


async def test_what_only_an_alias_publishes_can_be_closed_and_opened_again(mags: Installation, gateway: Edge) -> None:
    await sandbox(mags, "booth-3")
    close = "/mags-jobs/booth-3/access?port=8080"
    assert (await mags.api.delete(close)).status_code == 404, "nothing leads to it"
    await mags.api.post("/mags-url-aliases", json={"subdomain": "shut", "workspace_id": "booth-3"})
    assert (await gateway.resolve("shut")).status == "ok"
    assert (await mags.api.delete("/mags-jobs/booth-3/access?port=9000")).status_code == 404
    assert (await gateway.resolve("shut")).status == "ok"
    gateway.changed.clear()
    assert (await mags.api.delete(close)).status_code == 200
    await gateway.hears_of("shut")
    assert (await gateway.resolve("shut")).status == "closed"
    assert (await mags.api.delete(close)).status_code == 404, "it is closed"
    gateway.changed.clear()
    await access(mags, "booth-3", port=8080)
    await gateway.hears_of("shut")
    assert (await gateway.resolve("shut")).status == "ok"
    assert (await mags.api.delete(close)).status_code == 200
    assert (await gateway.resolve("shut")).status == "closed", "also when it was open to all"


async def test_a_link_opens_the_port_under_its_aliases_and_nothing_else(mags: Installation, gateway: Edge) -> None:
    for alias, workspace in (("linked", "link"), ("linked-too", "link"), ("not-linked", "link-2")):
        body = {"subdomain": alias, "workspace_id": workspace}
        assert (await mags.api.post("/mags-url-aliases", json=body)).status_code == 201
    await sandbox(mags, "link")
    await sandbox(mags, "link-2")
    first = await access(mags, "link", port=8080, private=True)
    second = await access(mags, "link", port=9000, private=True)
    other = await access(mags, "link-2", port=8080, private=True)

    def names(answer: dict[str, Any]) -> list[str]:
        urls = [httpx.URL(url) for url in (answer["signed_url"], *answer["alias_urls"])]
        assert len({url.params[edge.LINK_PARAMETER] for url in urls}) == 1
        return [url.host.partition(".")[0] for url in urls]

    assert names(first) == [first["subdomain"], "linked", "linked-too"]
    assert names(second) == [f"9000-{first['subdomain']}", "9000-linked", "9000-linked-too"]
    assert names(other) == [other["subdomain"], "not-linked"]
    for mine in (first, second, other):
        for theirs in (first, second, other):
            for name in names(theirs):
                found = await gateway.resolve(name)
                assert found.private
                key = httpx.URL(mine["signed_url"]).params[edge.LINK_PARAMETER]
                assert edge.check_link(found.secret, key) == (mine is theirs), name
    public = await access(mags, "link", port=8080, private=False)
    assert public["alias_urls"] == [f"http://{name}.apps.localhost:4281" for name in ("linked", "linked-too")]


@pytest.mark.parametrize("name", ["www", "api", "-a", "a-", "a.b", "a_b", "x" * 64, "", "80-x", "xn--a", "ä"])
async def test_a_name_that_can_not_be_is_refused(mags: Installation, name: str) -> None:
    answer = await mags.api.post("/mags-url-aliases", json={"subdomain": name, "workspace_id": "w"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_certificates_are_made_only_for_names_that_exist(mags: Installation, gateway: Edge) -> None:
    body = await sandbox(mags, "tls", url=True)

    async def known(host: str) -> bool:
        return (await gateway.ask(edge.ASK, edge.Ask(host=host), edge.Asked)).known

    assert await known(f"{body['subdomain']}.apps.localhost")
    assert await known(f"8080-{body['subdomain']}.apps.localhost")
    assert not await known("nothing.apps.localhost")
    assert not await known(f"{body['subdomain']}.example.com")
    assert not await known("apps.localhost")


async def test_ssh_gets_a_key_that_opens_this_sandbox_and_no_other(mags: Installation, gateway: Edge) -> None:
    body = await sandbox(mags, "ssh-1")
    await sandbox(mags, "ssh-2")
    made = await access(mags, "ssh-1", port=22)
    assert (made["ssh_user"], made["ssh_port"], made["ssh_host_key"]) == ("root", 2222, HOST_KEY)
    public = public_of(made["ssh_private_key"])

    async def grant(user: str, key: str = public) -> edge.SshGrant:
        return await gateway.ask(edge.SSH_AUTH, edge.SshAuth(user=user, public_key=key), edge.SshGrant)

    for user in ("root", "ssh-1", "ssh-1+daemon", body["request_id"]):
        found = await grant(user)
        assert (found.vm_id, found.host_id) == (body["vm_id"], "h1")
        assert found.guest_user == ("daemon" if "+" in user else "root")
    for user, key in (("ssh-2", public), ("nothing", public), ("ssh-1", HOST_KEY), ("ssh-1", "rubbish")):
        with pytest.raises(Problem) as refused:
            await grant(user, key)
        assert refused.value.code == "forbidden"
    assert (await mags.api.delete("/mags-jobs/ssh-1/access?port=22")).status_code == 200
    with pytest.raises(Problem):
        await grant("root")


async def test_ones_own_key_opens_all_of_ones_sandboxes(mags: Installation, gateway: Edge) -> None:
    body = await sandbox(mags, "own-1")
    _, public = public_keys.new_pair()
    await mags.api.post("/ssh-keys", json={"public_key": public.line})
    wish = edge.SshAuth(user="own-1", public_key=public.line)
    assert (await gateway.ask(edge.SSH_AUTH, wish, edge.SshGrant)).vm_id == body["vm_id"]
    await mags.api.post("/mags-jobs/own-1/stop")
    with pytest.raises(Problem) as told:
        await gateway.ask(edge.SSH_AUTH, wish, edge.SshGrant)
    assert told.value.code == "gone", "the key is good, so the client is told why"


async def test_a_job_keeps_a_bounded_number_of_keys(mags: Installation, gateway: Edge) -> None:
    await sandbox(mags, "keys")

    async def made() -> str:
        return public_of((await access(mags, "keys", port=22))["ssh_private_key"])

    async def opens(key: str) -> bool:
        try:
            await gateway.ask(edge.SSH_AUTH, edge.SshAuth(user="root", public_key=key), edge.SshGrant)
        except Problem:
            return False
        return True

    first = await made()
    for _ in range(KEYS_KEPT - 1):
        last = await made()
    assert (await opens(first), await opens(last)) == (True, True)
    newest = await made()
    assert (await opens(first), await opens(newest)) == (False, True)


async def test_a_key_that_is_still_good_is_used_again(mags: Installation, gateway: Edge) -> None:
    await sandbox(mags, "again")
    await sandbox(mags, "another")
    first = await access(mags, "again", port=22)
    public = public_of(first["ssh_private_key"])
    for _ in range(KEYS_KEPT + 1):
        again = await access(mags, "again", port=22, public_key=public)
        assert again == {**first, "ssh_private_key": None}
    await gateway.ask(edge.SSH_AUTH, edge.SshAuth(user="root", public_key=public), edge.SshGrant)

    _, strange = public_keys.new_pair()
    for reference, wrong in (("again", strange.line), ("again", "rubbish"), ("another", public)):
        made = await access(mags, reference, port=22, public_key=wrong)
        assert public_of(made["ssh_private_key"]) != wrong, "nobody brings a key: another is made"
    with pytest.raises(Problem):
        await gateway.ask(edge.SSH_AUTH, edge.SshAuth(user="again", public_key=strange.line), edge.SshGrant)

    await mags.api.delete("/mags-jobs/again/access?port=22")
    assert (await access(mags, "again", port=22, public_key=public))["ssh_private_key"] is not None


async def test_edges_hear_of_the_vms_that_a_removed_key_opened(mags: Installation, gateway: Edge) -> None:
    body = await sandbox(mags, "mine")
    made = (await mags.api.post("/ssh-keys", json={"public_key": public_keys.new_pair()[1].line})).json()
    gateway.changed.clear()
    assert (await mags.api.delete(f"/ssh-keys/{made['id']}")).status_code == 200
    async with asyncio.timeout(60):
        while not any(body["vm_id"] in change.vms for change in gateway.changed):
            await asyncio.sleep(0.01)


async def test_vms_have_ssh_ports_of_their_own_where_there_is_a_range(tmp_path: Path) -> None:
    async with alone(tmp_path, ssh_port_first=30000, ssh_port_count=2) as mags:
        gateway = Edge(mags)
        await gateway.start()
        for name in ("a", "b", "c"):
            await sandbox(mags, name)
        first, second = await access(mags, "a", port=22), await access(mags, "b", port=22)
        assert (first["ssh_port"], second["ssh_port"]) == (30000, 30001)
        assert (await access(mags, "a", port=22))["ssh_port"] == 30000
        assert (await access(mags, "c", port=22))["ssh_port"] == 2222, "the common port when all are taken"
        assert [wish.port for wish in gateway.listening] == [30000, 30001, 30000]
        key = public_of(second["ssh_private_key"])
        wish = edge.SshAuth(user="root", public_key=key, port=30001)
        assert (await gateway.ask(edge.SSH_AUTH, wish, edge.SshGrant)).name == "b"
        with pytest.raises(Problem):
            wish = edge.SshAuth(user="root", public_key=key, port=30000)
            await gateway.ask(edge.SSH_AUTH, wish, edge.SshGrant)
        assert set((await gateway.ask(edge.SSH_PORTS, messages.Empty(), edge.SshPorts)).ports) == {30000, 30001}
        await mags.api.post("/mags-jobs/a/stop")
        async with asyncio.timeout(60):
            while not any(30000 in change.ports for change in gateway.changed):
                await asyncio.sleep(0.01)
        assert (await access(mags, "c", port=22))["ssh_port"] == 30000


async def test_without_a_gateway_ssh_is_unavailable(tmp_path: Path) -> None:
    async with alone(tmp_path) as mags:
        await sandbox(mags, "a")
        answer = await mags.api.post("/mags-jobs/a/access", json={"port": 22})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_a_sleeping_vm_of_a_name_is_still_found(mags: Installation, gateway: Edge) -> None:
    body = await sandbox(mags, "sleepy", url=True)
    await mags.api.post("/mags-jobs/sleepy/sleep")
    await mags.reaches("sleepy", "sleeping")
    assert (await gateway.resolve(body["subdomain"])).status == "ok", "the host wakes it"


async def test_a_vm_that_is_just_starting_is_waited_for(mags: Installation, gateway: Edge) -> None:
    host = await mags.host()
    host.slow["start"] = 0.5
    try:
        request_id = await mags.submit("sleep infinity", persistent=True, url=True)
        subdomain = (await mags.status(request_id))["subdomain"]
        assert (await gateway.resolve(subdomain)).status == "starting"
    finally:
        host.slow.clear()
    await mags.reaches(request_id, "running")
    assert (await gateway.resolve(subdomain)).status == "ok"


async def test_rubbish_from_an_edge_is_answered(mags: Installation, gateway: Edge) -> None:
    for subject in (edge.RESOLVE, edge.SSH_AUTH, "mags.control.nothing"):
        reply = await mags.nats.request(subject, b"rubbish", timeout=30)
        with pytest.raises(Problem) as refused:
            messages.open_answer(reply.data, messages.Done)
        assert refused.value.code == "bad_request"
    async with client(mags.url, "") as nobody:
        assert (await nobody.get("/mags-url-aliases")).status_code == 401


def public_of(private: str) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    key = load_ssh_private_key(private.encode(), None).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
