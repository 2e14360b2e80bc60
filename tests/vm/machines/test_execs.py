"""Commands, files and connections in a VM that is up."""

from __future__ import annotations

import asyncio

import pytest

from mags.protocol import messages as m
from mags.protocol.errors import Problem
from tests.kit.host_world import PATIENCE, Caller

pytestmark = pytest.mark.vm


async def test_commands_in_one_vm(caller: Caller) -> None:
    vm_id, _ = await caller.start(None, keep="stay", environment={"A": "1"})

    result = await caller.exec(vm_id, 'echo "$A $B"; pwd; id -un; echo err >&2; exit 7', environment={"B": "2"})
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"1 2\n/root\nroot\n", b"err\n")
    assert not result.truncated and not result.timed_out

    result = await caller.exec(vm_id, "pwd; id -un", workdir="/tmp", user="nobody")
    assert result.stdout == b"/tmp\nnobody\n"

    words = await caller.ask("exec", m.Exec(vm_id=vm_id, command=["printf", "%s|", "a b", "$A"]), m.ExecResult)
    assert words.stdout == b"a b|$A|"

    data = bytes(range(256)) * 4096
    result = await caller.exec(vm_id, "cat", stdin=data)
    assert result.stdout == data

    result = await caller.exec(vm_id, "head -c 300000 /dev/zero", limit=1000)
    assert len(result.stdout) == 1000 and result.truncated

    result = await caller.exec(vm_id, "echo on; trap '' TERM; sleep 1000", timeout_s=0.5)
    assert (result.exit_code, result.timed_out, result.stdout) == (124, True, b"on\n")

    assert (await caller.exec(vm_id, "no-such-program")).exit_code == 127
    missing = await caller.ask("exec", m.Exec(vm_id=vm_id, command=["/no/such"]), m.ExecResult)
    assert (missing.exit_code, missing.stderr) == (127, b"mags: /no/such: No such file or directory\n")

    for wish, message in [
        (m.Exec(vm_id=vm_id, command=[]), "at least one word"),
        (m.Exec(vm_id=vm_id, command="true", user="ghost"), "no such user: ghost"),
        (m.Exec(vm_id=vm_id, command="true", workdir="/no/such"), "the directory to start in, /no/such"),
        (m.Exec(vm_id=vm_id, command=["/etc/passwd"]), "/etc/passwd: Permission denied"),
    ]:
        with pytest.raises(Problem, match=message) as caught:
            await caller.ask("exec", wish, m.ExecResult)
        assert caught.value.code == "invalid"

    results = await asyncio.gather(*(caller.exec(vm_id, f"echo {n}") for n in range(20)))
    assert [result.stdout for result in results] == [f"{n}\n".encode() for n in range(20)]


async def test_directories_and_names(caller: Caller) -> None:
    vm_id, _ = await caller.start(None, keep="stay")

    async def files(action: str, path: str, **more: object) -> list[m.FileEntry]:
        wish = m.Files(vm_id=vm_id, action=action, path=path, **more)  # type: ignore[arg-type]
        return (await caller.ask("files", wish, m.FilesResult)).entries

    await files("mkdir", "/root/a/b", mode=0o700)
    await caller.exec(vm_id, "cd /root/a; echo 12345 > f; chmod 640 f; ln -s f l; mkfifo p")
    entries = {entry.name: entry for entry in await files("list", "/root/a")}
    assert {name: entry.type for name, entry in entries.items()} == {
        "b": "directory",
        "f": "file",
        "l": "link",
        "p": "other",
    }
    assert (entries["f"].size, entries["f"].mode, entries["l"].target) == (6, 0o640, "f")
    (one,) = await files("stat", "/root/a/b")
    assert (one.type, one.mode) == ("directory", 0o700)
    with pytest.raises(Problem) as caught:
        await files("remove", "/root/a")
    assert caught.value.code == "conflict"
    await files("remove", "/root/a", recursive=True)
    for action, path, code in [
        ("list", "/root/a", "not_found"),
        ("stat", "root", "invalid"),
        ("stat", "/\0", "invalid"),
    ]:
        with pytest.raises(Problem) as caught:
            await files(action, path)
        assert caught.value.code == code


async def test_a_port_of_the_vm_can_be_dialled(caller: Caller) -> None:
    script = "(while :; do echo hello | nc -l -p 9000; done) >/dev/null 2>&1 &"
    vm_id, _ = await caller.start(script, keep="stay")
    dialed = await caller.ask("dial", m.Dial(vm_id=vm_id, port=9000), m.Dialed)
    async with asyncio.timeout(PATIENCE):
        while True:  # until it listens
            try:
                reader, writer = await asyncio.open_connection(dialed.address, dialed.port)
                assert await reader.readline() == b"hello\n"
                break
            except ConnectionError:
                await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
