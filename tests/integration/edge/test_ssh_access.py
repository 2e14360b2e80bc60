"""Who may come in by SSH, and how often: keys, limits, algorithms, revocation, the VMs' own ports."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import asyncssh
import paramiko
import pytest

from mags.edge.app import Edge
from mags.edge.ssh.gateway import TOLD
from mags.edge.ssh.keys import KEY_NAME
from mags.hostclient import HostClient
from mags.protocol import edge, messages
from mags.protocol.errors import Problem
from tests.integration.edge.ssh_client import Client, make_client
from tests.integration.edge.test_ssh import connect
from tests.integration.edge.world import World, free_port


async def test_a_wrong_key_and_an_unknown_sandbox_look_alike(client: Client, world: World) -> None:
    stranger = make_client(world, "stranger")

    wrong = await stranger.ssh("true")
    unknown = await stranger.ssh("true", user="nobody-has-this")
    others = await client.ssh("true", user="nobody-has-this")

    assert {wrong.status, unknown.status, others.status} == {255}
    assert wrong.stderr.replace(b"dev@", b"X@") == unknown.stderr.replace(b"nobody-has-this@", b"X@")
    assert world.host.opened == []


async def test_passwords_are_not_taken_and_guessing_ends_soon(client: Client) -> None:
    class Guesser(asyncssh.SSHClient):
        guesses = 0

        def password_auth_requested(self) -> str:
            self.guesses += 1
            return "letmein"

        def kbdint_auth_requested(self) -> str:
            self.guesses += 1
            return ""

    guesser = Guesser()
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(client, client_keys=[], client_factory=lambda: guesser)
    assert guesser.guesses == 0  # neither was offered


async def test_a_client_that_tries_many_keys_is_cut_off(client: Client) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(12)]

    with pytest.raises(asyncssh.DisconnectError) as caught:
        await connect(client, client_keys=[*keys, client.key])

    assert "Too many authentication failures" in str(caught.value)


async def test_paramiko_may_try_other_keys_first(client: Client, world: World) -> None:
    keys = [str(make_client(world, f"other{number}").folder / "key") for number in range(3)]
    files: Any = [*keys, str(client.folder / "key")]  # its types know one only

    def use() -> bytes:
        with paramiko.SSHClient() as connection:
            connection.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            connection.connect(
                "127.0.0.1", client.port, "dev", key_filename=files,
                look_for_keys=False, allow_agent=False, timeout=60, banner_timeout=60, auth_timeout=60,
            )  # fmt: skip
            return bytes(connection.exec_command("echo in", timeout=60)[1].read())

    assert await asyncio.to_thread(use) == b"in\n"


async def test_a_few_other_keys_first_do_no_harm(client: Client) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(4)]

    async with await connect(client, client_keys=[*keys, client.key]) as connection:
        assert (await connection.run("true")).exit_status == 0


@pytest.mark.parametrize(
    "wish",
    [
        {"kex_algs": ["diffie-hellman-group14-sha1"]},
        {"kex_algs": ["diffie-hellman-group14-sha256"]},
        {"encryption_algs": ["aes128-cbc"], "mac_algs": ["hmac-sha2-256"]},
        {"encryption_algs": ["aes128-ctr"], "mac_algs": ["hmac-sha1"]},
    ],
    ids=lambda wish: "+".join(str(value[0]) for value in wish.values()),
)
async def test_weak_algorithms_are_refused(client: Client, wish: dict[str, Any]) -> None:
    with pytest.raises(asyncssh.KeyExchangeFailed):
        await connect(client, "dev", **wish)


async def test_a_short_rsa_key_is_refused_though_it_is_registered(client: Client) -> None:
    client.key = asyncssh.generate_private_key("ssh-rsa", key_size=1024)
    client.grant()
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(client)

    client.key = asyncssh.generate_private_key("ssh-rsa", key_size=3072)
    client.grant()
    async with await connect(client) as connection:
        assert (await connection.run("true")).exit_status == 0


async def test_nothing_is_forwarded_out_of_the_gateway(client: Client) -> None:
    async with await connect(client) as connection:
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_path("/tmp/never", "/tmp/never")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/var/run/docker.sock")
        done = await connection.run('echo "agent=$SSH_AUTH_SOCK display=$DISPLAY"')
        assert done.stdout == "agent= display=\n"


async def test_a_forwarded_agent_is_refused(client: Client) -> None:
    async with await connect(client, agent_forwarding=True) as connection:
        done = await connection.run('echo "agent=$SSH_AUTH_SOCK"')
        assert done.stdout == "agent=\n"


async def test_unknown_subsystems_are_refused(client: Client) -> None:
    async with await connect(client) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process(subsystem="netconf")


async def test_a_hundred_sessions_at_once_are_served(client: Client) -> None:
    async def one(connection: asyncssh.SSHClientConnection, number: int) -> object:
        return (await connection.run(f"echo {number}")).stdout

    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await connect(client)) for _ in range(10)]
        seen = await asyncio.gather(*(one(connections[number % 10], number) for number in range(100)))

    assert seen == [f"{number}\n" for number in range(100)]


async def test_channels_and_connections_are_limited(world: World) -> None:
    await world.start(ssh_max_sessions=2, ssh_max_per_client=3)
    world.host.vm("v1")
    client = make_client(world)
    client.grant()
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await connect(client)) for _ in range(3)]
        with pytest.raises(asyncssh.DisconnectError, match="Your address has 3 connections already"):
            await connect(client)

        first, second = [await connections[0].create_process("cat") for _ in range(2)]
        with pytest.raises(asyncssh.ChannelOpenError):
            await connections[0].create_process("cat")
        first.stdin.write_eof()
        await first.wait()
        again = await connections[0].create_process("cat")
        for process in (second, again):
            process.stdin.write_eof()
            await process.wait()
    async with asyncio.timeout(60):
        while True:  # the gateway learns of an end a moment later
            try:
                (await connect(client)).abort()
                break
            except (OSError, asyncssh.Error):
                await asyncio.sleep(0.05)


async def test_one_connection_too_many_for_the_gateway_is_told_so_and_a_flood_is_cut(world: World) -> None:
    await world.start(ssh_max_connections=2)
    world.host.vm("v1")
    client = make_client(world)
    client.grant()
    async with await connect(client), await connect(client):
        done = await client.ssh("true")
        assert (done.status, done.stdout) == (255, b"")
        assert b"The gateway has all the connections it can have" in done.stderr

        silent = [await asyncio.open_connection("127.0.0.1", client.port) for _ in range(TOLD + 1)]
        try:
            reader, _ = silent[-1]
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(60):
                    await reader.read(-1)
        finally:
            for _, writer in silent:
                writer.close()


async def test_strangers_do_not_take_the_place_of_others(world: World) -> None:
    await world.start(ssh_max_unauthenticated=5, ssh_login_timeout_s=1)
    world.host.vm("v1")
    client = make_client(world)
    client.grant()
    silent = [await asyncio.open_connection("127.0.0.1", client.port) for _ in range(8)]
    try:
        for reader, _ in silent:
            async with asyncio.timeout(60):
                while await reader.read(1 << 16):  # its banner, then the end: no room, or no login in time
                    pass
        async with await connect(client) as connection:
            assert (await connection.run("true")).exit_status == 0
    finally:
        for _, writer in silent:
            writer.close()


async def test_a_revoked_key_ends_its_connections(client: Client, world: World) -> None:
    connection = await connect(client)
    process = await connection.create_process("sleep 600")
    world.control.keys.clear()

    await world.control.changed(vms=("v1",))

    async with asyncio.timeout(60):
        await connection.wait_closed()
    assert process.exit_status is None
    assert (await client.ssh("true")).status == 255


async def test_a_vm_has_a_port_of_its_own_when_control_says_so(world: World) -> None:
    port = free_port()
    await world.start(ssh_port_range=f"{port}-{port}")
    world.host.vm("v1")
    client = make_client(world)
    client.grant("root", port)
    ask = HostClient(world.host.nats)

    with pytest.raises(Problem) as caught:
        await ask.ask(edge.LISTEN, edge.Listen(port=port + 1, job_id="j1"), messages.Done, timeout=30, who="Edge")
    assert caught.value.code == "invalid"
    await ask.ask(edge.LISTEN, edge.Listen(port=port, job_id="j1"), messages.Done, timeout=30, who="Edge")

    assert (await client.ssh("echo in", user="root", port=port)).stdout == b"in\n"
    assert (await client.ssh("echo in", user="root")).status == 255  # not on the common one

    await world.control.changed(ports=(port,))
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                break
            writer.close()
            await asyncio.sleep(0.05)


async def test_own_ports_are_open_again_after_a_restart(world: World) -> None:
    port = free_port()
    world.control.ports = {port: "j1"}
    await world.start(ssh_port_range=f"{port}-{port}")
    world.host.vm("v1")
    client = make_client(world)
    client.grant("root", port)

    async with asyncio.timeout(60):
        while (await client.ssh("true", user="root", port=port)).status != 0:
            await asyncio.sleep(0.05)


async def test_the_host_key_stays_the_same_and_is_told(client: Client, world: World) -> None:
    assert world.edge.ssh is not None
    before = world.edge.ssh.host_key
    ask = HostClient(world.host.nats)
    told = await ask.ask(edge.DESCRIBE, messages.Empty(), edge.EdgeInfo, timeout=30, who="Edge")
    assert told.ssh_host_key == before

    await world.edge.aclose()
    world.edge = Edge(world.settings)
    await world.edge.start()
    world.stack.push_async_callback(world.edge.aclose)
    assert world.edge.ssh is not None
    assert world.edge.ssh.host_key == before
    assert (world.settings.data_dir / KEY_NAME).stat().st_mode & 0o777 == 0o600


async def test_a_damaged_host_key_is_not_replaced_in_silence(client: Client, world: World) -> None:
    await world.edge.aclose()
    (world.settings.data_dir / KEY_NAME).write_text("what")
    edge_again = Edge(world.settings)
    with pytest.raises(ValueError, match="is no SSH key"):
        await edge_again.start()
    await edge_again.aclose()


async def test_an_open_connection_counts_as_activity(client: Client, world: World) -> None:
    async with await connect(client):
        async with asyncio.timeout(60):
            while not any(one.vm_id == "v1" and one.connections for one in world.host.activity):
                await asyncio.sleep(0.05)
