"""The doctor on this machine."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from mags.host.checks import Subject, examine, machine, programs
from tests.kit.networks import World


async def test_the_examination_finds_this_machine_fit_and_changes_nothing(world: World, tmp_path: Path) -> None:
    found = await examine(Subject(tmp_path / "data", ports={"127.0.0.1:0": "the API"}))
    assert [check for check in found if check.ok is False] == []
    assert {"networks", "firewall", "QEMU", "KVM", "port 0", "users", "kernel modules"} <= {
        check.name for check in found
    }
    assert all(check.advice for check in found if check.ok is not True)
    assert not (tmp_path / "data").exists()


async def test_a_dropping_firewall_is_named(world: World, tmp_path: Path) -> None:
    chain = "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"
    rules = f"add table ip filter; {chain}"
    subprocess.run(["nft", rules], check=True)
    try:
        (found,) = [check for check in await examine(Subject(tmp_path)) if check.name == "firewall"]
        assert found.ok is None and "ip filter FORWARD" in found.detail and "DOCKER-USER" in found.advice
    finally:
        subprocess.run(["nft", "delete table ip filter"], check=True)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = machine.port(f"127.0.0.1:{port}", "the API")
    assert found.ok is False and "already in use" in found.detail and str(port) in found.advice


async def test_an_old_or_missing_qemu_is_named(tmp_path: Path) -> None:
    old = tmp_path / "qemu"
    old.write_text("#!/bin/sh\necho 'QEMU emulator version 7.2.19 (Debian)'\n")
    old.chmod(0o755)
    assert "backports" in (await programs.qemu(str(old))).advice
    assert (await programs.qemu("qemu-of-nobody")).ok is False
