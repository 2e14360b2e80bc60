"""Files and connections through the SSH gateway: sftp, scp, rsync, paramiko, -L and -D."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import asyncssh
import paramiko

from mags.kit.process import run
from tests.integration.edge.ssh_client import TIMEOUT, Client
from tests.integration.edge.test_ssh import connect
from tests.integration.edge.world import World, free_port

BODY = os.urandom(3_000_000)


def local(client: Client, name: str, data: bytes = BODY) -> Path:
    path = client.folder / name
    path.write_bytes(data)
    return path


def guest(client: Client, name: str) -> Path:
    """A file of the scripted VM: its home is the working directory of what runs there."""
    return client.world.host.home / name


async def test_sftp_takes_files_both_ways(client: Client) -> None:
    there = local(client, "there")
    batch = local(client, "batch", f"put {there} up\nget up {client.folder}/back\nls -l\nrename up other\n".encode())

    done = await client.run("sftp", "-b", str(batch), "dev@127.0.0.1")

    assert done.status == 0, done.stderr
    assert (client.folder / "back").read_bytes() == BODY
    assert guest(client, "other").read_bytes() == BODY


async def test_scp_takes_files_both_ways(client: Client) -> None:
    there = local(client, "there")

    up = await client.run("scp", str(there), "dev@127.0.0.1:up")
    down = await client.run("scp", "dev@127.0.0.1:up", str(client.folder / "back"))

    assert (up.status, down.status) == (0, 0), up.stderr + down.stderr
    assert (client.folder / "back").read_bytes() == BODY


async def test_the_old_scp_runs_scp_in_the_vm(client: Client) -> None:
    there = local(client, "there")

    done = await client.run("scp", "-O", str(there), "dev@127.0.0.1:up")

    assert done.status == 0, done.stderr
    assert guest(client, "up").read_bytes() == BODY


async def test_rsync_keeps_directories_alike(client: Client) -> None:
    tree = client.folder / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "a").write_bytes(BODY)
    (tree / "b").write_text("b")
    shell = " ".join(["ssh", *client.options, "-p", str(client.port)])

    done = await run(["rsync", "-a", "-e", shell, f"{tree}/", "dev@127.0.0.1:copy/"], timeout=TIMEOUT)

    assert done.status == 0
    assert guest(client, "copy/deep/a").read_bytes() == BODY
    assert guest(client, "copy/b").read_text() == "b"


async def test_an_sftp_write_that_is_cut_leaves_nothing_running(client: Client) -> None:
    connection = await connect(client)
    sftp = await connection.start_sftp_client()
    file = await sftp.open("half", "wb")
    await file.write(BODY[: 1 << 20])

    connection.abort()

    async with asyncio.timeout(60):
        await asyncio.gather(*client.world.host.sessions)
    assert (await client.ssh("echo still there")).stdout == b"still there\n"


async def test_paramiko_runs_commands_and_moves_files(client: Client) -> None:
    def use() -> tuple[bytes, bytes, int, bytes]:
        with paramiko.SSHClient() as other:
            other.get_host_keys().add(
                f"[127.0.0.1]:{client.port}", "ssh-ed25519", paramiko.Ed25519Key(data=host_key_blob(client))
            )
            other.connect(
                "127.0.0.1", client.port, "dev", key_filename=str(client.folder / "key"),
                look_for_keys=False, allow_agent=False, timeout=60, banner_timeout=60, auth_timeout=60,
            )  # fmt: skip
            _, stdout, stderr = other.exec_command("echo out; echo err >&2; exit 4", timeout=60)
            out, err = stdout.read(), stderr.read()
            status = stdout.channel.recv_exit_status()
            with other.open_sftp() as sftp:
                sftp.put(str(local(client, "there")), "up")
                with sftp.open("up", "rb") as file:
                    back = file.read()
            return out, err, status, back

    assert await asyncio.to_thread(use) == (b"out\n", b"err\n", 4, BODY)


def host_key_blob(client: Client) -> bytes:
    assert client.world.edge.ssh is not None
    return asyncssh.import_public_key(client.world.edge.ssh.host_key).public_data


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")


async def talk(port: int, data: bytes) -> bytes:
    """Say `data` and hear everything until the other side ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(60):
            return await reader.read(-1) if not data else await read_all(reader)
    finally:
        writer.close()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    seen = b""
    while data := await reader.read(1 << 16):
        seen += data
    return seen


async def test_a_local_port_leads_to_a_port_in_the_vm(client: Client) -> None:
    client.world.host.vms["v1"].ports[5432] = await client.world.serve(echo)

    async with await connect(client) as connection:
        listener = await connection.forward_local_port("127.0.0.1", 0, "localhost", 5432)
        assert await talk(listener.get_port(), b"hello, ") == b"hello, bye"
        assert await talk(listener.get_port(), BODY[:500_000]) == BODY[:500_000] + b"bye"
        listener.close()

    assert {(one.kind, one.host, one.port) for one in client.world.host.opened} == {("connect", "127.0.0.1", 5432)}


async def test_a_port_where_nothing_listens_closes_the_connection(client: Client) -> None:
    async with await connect(client) as connection:
        listener = await connection.forward_local_port("127.0.0.1", 0, "localhost", 1)
        assert await talk(listener.get_port(), b"anybody?") == b""
        listener.close()


async def test_openssh_forwards_by_port_and_by_socks(client: Client, world: World) -> None:
    world.host.vms["v1"].ports[80] = await world.serve(echo)
    fixed, socks = free_port(), free_port()
    assert world.edge.ssh is not None
    ssh = await asyncio.create_subprocess_exec(
        "ssh", *client.options, "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{fixed}:127.0.0.1:80",
        "-D", f"127.0.0.1:{socks}", "-p", str(client.port), "dev@127.0.0.1",
    )  # fmt: skip
    try:
        await listening(fixed)
        await listening(socks)
        assert await talk(fixed, b"by port, ") == b"by port, bye"
        assert await asyncio.to_thread(by_socks, socks, "inside.example", 80, b"by socks, ") == b"by socks, bye"
    finally:
        ssh.terminate()
        await ssh.wait()
    assert world.host.opened[-1].host == "inside.example"


async def listening(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.05)


def by_socks(proxy: int, host: str, port: int, data: bytes) -> bytes:
    """Through a SOCKS5 proxy (RFC 1928), naming the host for it to look up."""
    with socket.create_connection(("127.0.0.1", proxy), timeout=60) as connection:
        connection.sendall(b"\x05\x01\x00")
        assert connection.recv(2) == b"\x05\x00"
        name = host.encode()
        connection.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
        assert connection.recv(10)[:2] == b"\x05\x00"
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        seen = b""
        while chunk := connection.recv(1 << 16):
            seen += chunk
        return seen
