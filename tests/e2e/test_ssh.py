"""A VM's shell from the outside: by `mags ssh`, ssh and paramiko."""

from __future__ import annotations

import io

import paramiko
import pytest

from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


def test_mags_ssh_runs_a_command_and_makes_the_sandbox(mags: Installation) -> None:
    done = mags.cli("ssh", "shell", "--", "echo out; echo err >&2; exit 5", check=False)
    assert (done.returncode, done.stdout) == (5, b"out\n")
    assert b"err" in done.stderr
    assert mags.out("ssh", "shell", "--", "cat", input=b"from stdin") == "from stdin"


def test_paramiko_gets_a_shell_and_files(mags: Installation) -> None:
    from mags import Mags

    mags.cli("new", "shell2")
    with Mags(api_url=mags.url, api_token=mags.token) as client_of_the_api:
        access = client_of_the_api.enable_access("shell2", port=22)
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(access["ssh_private_key"]))
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            access["ssh_host"], access["ssh_port"], access["ssh_user"], pkey=key, look_for_keys=False, allow_agent=False
        )
        _, stdout, _ = client.exec_command("echo hi; exit 3", timeout=60)
        assert stdout.read() == b"hi\n" and stdout.channel.recv_exit_status() == 3
        data = bytes(range(256)) * 2000
        with client.open_sftp() as sftp:
            with sftp.open("/root/blob", "wb") as file:
                file.write(data)
            with sftp.open("/root/blob", "rb") as file:
                assert file.read() == data
            assert "blob" in sftp.listdir("/root")
    mags.cli("stop", "shell2")
