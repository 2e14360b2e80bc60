"""The SSH gateway with OpenSSH's own client: commands, shells, signals, the environment."""

from __future__ import annotations

import asyncio

import asyncssh

from mags.edge.ssh.shell import VARIABLES
from mags.protocol.errors import Problem
from tests.integration.edge.ssh_client import Client
from tests.kit.terminal import Terminal


async def test_a_command_gives_its_output_apart_from_its_errors_and_its_status(client: Client) -> None:
    done = await client.ssh("echo out; echo err >&2; exit 7")

    assert (done.stdout, done.stderr, done.status) == (b"out\n", b"err\n", 7)


async def test_input_and_output_pass_whole(client: Client) -> None:
    body = bytes(range(256)) * 8000

    back = await client.ssh("cat", stdin=body)

    assert back.status == 0
    assert back.stdout == body


async def test_much_output_reaches_a_slow_reader_whole(client: Client) -> None:
    seen = 0
    async with await connect(client) as connection:
        process = await connection.create_process("head -c 8000000 /dev/zero", encoding=None)
        while data := await process.stdout.read(1 << 16):
            seen += len(data)
            await asyncio.sleep(0.001)

    assert seen == 8_000_000


async def test_a_shell_has_a_terminal_of_the_clients_size_that_follows_it(client: Client) -> None:
    terminal = Terminal(33, 101)
    try:
        await terminal.start(["ssh", *client.options, "-tt", "-p", str(client.port), "dev@127.0.0.1"])
        await terminal.expect(r"\$ ")
        terminal.type("stty size; echo $TERM; tty\n")
        await terminal.expect(r"33 101")
        await terminal.expect(r"/dev/pts/\d+")

        terminal.resize(50, 120)
        await until_size(terminal, "50 120")

        terminal.type("exit 5\n")
        assert await terminal.wait() == 5
    finally:
        await terminal.close()


async def until_size(terminal: Terminal, wanted: str) -> None:
    """The change of size comes by a way of its own: it may be seen a moment later."""
    for _ in range(100):
        terminal.type("stty size; echo looked\n")
        if (await terminal.expect(r"\n(\d+ \d+)\r?\nlooked"))[1] == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the terminal never had the size {wanted}")


async def test_control_c_interrupts_what_runs_at_the_terminal(client: Client) -> None:
    terminal = Terminal()
    try:
        await terminal.start(["ssh", *client.options, "-tt", "-p", str(client.port), "dev@127.0.0.1"])
        await terminal.expect(r"\$ ")
        terminal.type("sleep 600; echo ended-with-$?\n")
        await terminal.expect(r"sleep 600")
        terminal.type("\x03")
        await terminal.expect(r"\$ ")
        terminal.type("exit 0\n")
        assert await terminal.wait() == 0
    finally:
        await terminal.close()


async def test_a_signal_reaches_the_process(client: Client) -> None:
    async with await connect(client) as connection:
        process = await connection.create_process(
            "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.1; done"
        )
        assert await process.stdout.readline() == "ready\n"
        process.send_signal("USR1")
        assert await process.stdout.readline() == "got it\n"
        assert (await process.wait()).exit_status == 3


async def test_the_environment_is_handed_over_without_what_no_environment_holds(client: Client) -> None:
    async with await connect(client) as connection:
        done = await connection.run('echo "$LANG $GREETING"', env={"LANG": "C.UTF-8", "GREETING": "hé llo", "1=2": "x"})

    assert done.stdout == "C.UTF-8 hé llo\n"
    assert client.world.host.opened[-1].environment == {"LANG": "C.UTF-8", "GREETING": "hé llo"}


async def test_an_environment_without_end_is_cut(client: Client) -> None:
    many = {f"V{number}": "x" for number in range(2000)}
    async with await connect(client) as connection:
        assert (await connection.run("true", env=many)).exit_status == 0
        assert (
            await connection.run("true", env={"FIRST": "1", "BIG": "x" * 30_000, "BIGGER": "x" * 40_000})
        ).stdout == ""

    some, big = (one.environment for one in client.world.host.opened)
    assert some == {f"V{number}": "x" for number in range(VARIABLES)}
    assert {name: len(value) for name, value in big.items()} == {"FIRST": 1, "BIG": 30_000}


async def test_a_client_that_is_cut_off_ends_its_process(client: Client) -> None:
    connection = await connect(client)
    process = await connection.create_process("echo $$; exec sleep 600")
    await process.stdout.readline()
    assert len(client.world.host.sessions) == 1

    connection.abort()

    async with asyncio.timeout(60):
        await asyncio.gather(*client.world.host.sessions)


async def test_a_sleeping_vm_wakes(client: Client) -> None:
    vm = client.world.host.vms["v1"]
    vm.asleep, vm.wake_s = True, 0.3

    done = await client.ssh("true")

    assert (done.status, vm.wakes) == (0, 1)


async def test_a_good_key_to_a_gone_sandbox_is_told_so(client: Client) -> None:
    client.world.control.keys["dev", None] = ({client.public}, Problem("gone", "The sandbox dev was stopped."))

    done = await client.ssh("true")

    assert done.status == 255
    assert b"The sandbox dev was stopped." in done.stderr


async def test_a_vm_that_has_moved_is_found_again(client: Client) -> None:
    async with await connect(client) as connection:
        assert (await connection.run("true")).exit_status == 0
        del client.world.host.vms["v1"]
        client.world.host.vm("v2")
        client.grant(vm_id="v2")
        assert (await connection.run("echo moved")).stdout == "moved\n"


async def test_a_vm_that_is_being_placed_is_waited_for(client: Client) -> None:
    opening = client.world.control.keys.copy()
    client.world.control.keys["dev", None] = ({client.public}, Problem("unavailable", "It is just starting."))
    async with await connect(client) as connection:
        running = asyncio.create_task(connection.run("echo there"))
        async with asyncio.timeout(60):
            while client.world.control.authorisations < 4:
                await asyncio.sleep(0.02)
        client.world.control.keys.update(opening)
        assert (await running).stdout == "there\n"


async def test_nobody_is_let_in_while_control_is_away(client: Client) -> None:
    await client.world.control.aclose()
    assert (await client.ssh("true")).status == 255
    assert client.world.host.opened == []


async def connect(client: Client, user: str = "dev", **more: object) -> asyncssh.SSHClientConnection:
    wishes = {"known_hosts": None, "client_keys": [client.key], "config": None, "agent_path": None, **more}
    return await asyncssh.connect("127.0.0.1", client.port, username=user, **wishes)
