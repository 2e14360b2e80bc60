"""The parts of `mags up` that start nothing: settings, ports, broker, environments, the user's configuration."""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pydantic import ValidationError

from mags.cli.command import Session, execute
from mags.cli.commands import up
from mags.cli.console import Console
from mags.kit import pidfiles
from mags.protocol import edge, subjects
from mags.sdk.settings import read_config, write_config
from mags.supervisor import broker, clearing, client_config, ports, programs, storage
from mags.supervisor.config import Settings, reachable_url
from mags.supervisor.layout import Layout
from mags.supervisor.lock import AlreadyUp, Lock, is_held, read_record


@pytest.mark.parametrize(("address", "url"), [
    ("127.0.0.1:1", "http://127.0.0.1:1"), ("0.0.0.0:80", "http://127.0.0.1:80"), ("[::]:80", "http://[::1]:80"),
    (":80", "http://127.0.0.1:80"), ("[::1]:9", "http://[::1]:9"), ("example.org:443", "http://example.org:443"),
])  # fmt: skip
def test_addresses_are_reached_from_here(address: str, url: str) -> None:
    assert reachable_url(Settings(api=address).api) == url


@pytest.mark.parametrize("address", ["127.0.0.1", "x:y", "x:99999", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="HOST:PORT"):
        Settings(api=address)


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_wrong_flag_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(up, "up", ["--programs", "control,disk"], Console()) == 2
    assert execute(up, "up", ["--api", "nowhere"], Console()) == 2
    assert "api: Value error, 'nowhere' is not HOST:PORT" in capsys.readouterr().err


def test_root_is_needed_for_vms(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    arguments = up_arguments("--data-dir", str(tmp_path / "d"))
    with pytest.raises(Exception, match="sudo mags up"):
        up.run(arguments, Session(Console()))
    assert not (tmp_path / "d").exists()


def up_arguments(*words: str):  # type: ignore[no-untyped-def]
    from mags.cli.command import parser

    return parser(up, "up").parse_args(words)


def test_a_taken_port_says_whose_and_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ports.PortTaken, match=rf"Port {port} \(the API\) is taken .*--api 127.0.0.1:"):
            ports.check(f"127.0.0.1:{port}", use="the API", flag="--api")
    ports.check(f"127.0.0.1:{port}", use="the API", flag="--api")
    with pytest.raises(ports.PortTaken, match="Nobody can listen"):
        ports.check("192.0.2.1:80", use="the API", flag="--api")


def test_passwords_stay_and_are_nobodys_business(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    users = broker.passwords(file)
    assert broker.passwords(file) == users and set(users) == set(broker.USERS)
    assert len(set(users.values())) == len(users) and stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("broken")
    assert broker.passwords(file) != users


def test_each_program_may_speak_on_its_own_subjects_only(tmp_path: Path) -> None:
    users = dict.fromkeys(broker.USERS, "p")
    config = json.loads(broker.configuration(address="127.0.0.1:1", store=tmp_path, users=users, server_name="x"))
    allowed = {user["user"]: user["permissions"]["publish"]["allow"] for user in config["authorization"]["users"]}
    assert config["listen"] == "127.0.0.1:1" and config["max_payload"] == subjects.MAX_PAYLOAD
    assert not any(subject.startswith("mags.host") for subject in allowed["host"])
    assert edge.CONTROL in allowed["edge"] and "$JS.>" not in allowed["edge"]
    assert allowed["supervisor"] == ["mags.host.*.rpc.*"]


def test_programs_take_what_they_are_told_and_what_only_we_know(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, api="0.0.0.0:80", apps="127.0.0.1:81", ssh="127.0.0.1:82")
    layout = Layout(tmp_path)
    told = {"MAGS_CONTROL_DATABASE_URL": "postgresql://db", "MAGS_CONTROL_PORT": "9", "HOME": "/root"}
    control = programs.environment("control", settings, layout, "nats://u:p@x:1", inherited=told)
    assert control["MAGS_CONTROL_DATABASE_URL"] == "postgresql://db" and control["HOME"] == "/root"
    assert (control["MAGS_CONTROL_PORT"], control["MAGS_CONTROL_NATS_URL"]) == ("80", "nats://u:p@x:1")
    assert (control["MAGS_CONTROL_APPS_PORT"], control["MAGS_CONTROL_SSH_PORT"]) == ("81", "82")
    host = programs.environment("host", settings, layout, "nats://", inherited={}, storage={"STORAGE_KIND": "s3"})
    assert host["MAGS_HOST_DATA_DIR"] == str(tmp_path) and host["MAGS_HOST_STORAGE_KIND"] == "s3"
    edge_ = programs.environment("edge", settings, layout, "nats://", inherited={}, storage={"STORAGE_KIND": "s3"})
    assert (edge_["MAGS_EDGE_LISTEN_HTTP"], edge_["MAGS_EDGE_SSH_PORT"]) == ("127.0.0.1:81", "82")


@pytest.mark.parametrize("name", ["control", "host", "edge"])
def test_every_name_that_we_set_is_a_setting_of_the_program(tmp_path: Path, name: str) -> None:
    from importlib import import_module

    settings = Settings(data_dir=tmp_path, s3="local")
    given = programs.environment(name, settings, Layout(tmp_path), "nats://", inherited={})
    prefix = f"MAGS_{name.upper()}_"
    known = {prefix + field.upper() for field in import_module(f"mags.{name}.config").Settings.model_fields}
    if name == "host":
        from mags.host.storage.config import StorageSettings

        known |= {f"{prefix}STORAGE_{field.upper()}" for field in StorageSettings.model_fields}
    assert {key for key in given if key.startswith(prefix)} <= known


FILE, S3 = '{"storage": "file"}', '{"storage": "s3"}'


@pytest.mark.parametrize(("wished", "told", "note", "weed", "chosen"), [
    ("", None, None, False, ""), ("local", "s3", None, False, "local"), ("seaweedfs", None, None, False, "seaweedfs"),
    ("", None, None, True, "seaweedfs"), ("", None, S3, True, "seaweedfs"), ("seaweedfs", "s3", S3, True, "seaweedfs"),
    ("", "off", S3, True, ""), ("local", None, S3, True, None), ("", "local", S3, True, None),
    ("", "s3", S3, True, None), ("", None, FILE, False, ""), ("local", None, FILE, False, "local"),
    ("seaweedfs", None, FILE, False, None), ("seaweedfs", None, "", False, None), ("", "s3", FILE, False, None),
    ("", "s3", S3, False, ""), ("local", "s3", S3, False, None), ("seaweedfs", "s3", S3, False, None),
    ("", "s3", "", False, ""), ("", None, "", False, ""),
])  # fmt: skip
def test_the_kind_of_storage_is_chosen_once(
    tmp_path: Path, wished: str, told: str | None, note: str | None, weed: bool, chosen: str | None
) -> None:
    layout = Layout(tmp_path)
    if note is not None:
        layout.volume.parent.mkdir(parents=True)
        layout.volume.write_text(note)
    if weed:
        layout.seaweedfs.mkdir()
        (layout.seaweedfs / "mags.json").touch()
    if chosen is None:
        with pytest.raises(storage.Changed, match="Nothing was changed"):
            storage.choose(wished, told, layout)
    else:
        assert storage.choose(wished, told, layout) == chosen


def test_sockets_get_a_short_path(tmp_path: Path) -> None:
    assert Layout(Path("/var/lib/mags")).sockets == Path("/var/lib/mags/run")
    deep = Layout(tmp_path / ("x" * 80))
    assert len(str(deep.sockets)) < 35 and deep.id in deep.sockets.name
    assert Layout(tmp_path / "a").id != Layout(tmp_path / "b").id


def test_a_place_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="--data-dir"):
        Layout(tmp_path / "file" / "d").make()


def test_one_at_a_time(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "d")
    layout.make()
    assert read_record(layout) is None and not is_held(layout.lock)
    lock = Lock(layout)
    with pytest.raises(AlreadyUp, match="just starting"):
        Lock(layout)
    lock.publish({"pid": os.getpid(), "api_url": "http://x"})
    assert (read_record(layout) or {})["api_url"] == "http://x" and is_held(layout.lock)
    with pytest.raises(AlreadyUp, match=rf"pid {os.getpid()}, http://x.*mags down"):
        Lock(layout)
    lock.release()
    assert read_record(layout) is None and not is_held(layout.lock)
    Lock(layout).release()


def test_a_record_without_its_holder_says_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "d")
    layout.make()
    layout.record.write_text('{"pid": 1, "api_url": "http://old"}')
    assert read_record(layout) is None


def test_the_local_user_needs_no_set_up(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    environment = {"MAGS_CONFIG": str(file)}
    assert client_config.save("http://127.0.0.1:1", "t", environment=environment) == []
    assert read_config(file) == {"api_url": "http://127.0.0.1:1", "api_token": "t"}
    assert client_config.save("http://127.0.0.1:2", "t2", environment=environment) == []
    assert read_config(file) == {"api_url": "http://127.0.0.1:2", "api_token": "t2"}


def test_a_configuration_for_another_server_stays(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write_config(file, {"api_url": "https://mags.example.org", "api_token": "theirs"})
    notes = client_config.save("http://127.0.0.1:1", "t", environment={"MAGS_CONFIG": str(file)})
    assert "mags login" in notes[0] and read_config(file)["api_token"] == "theirs"
    file.write_text("{")
    assert "config.json" in client_config.save("http://x", "t", environment={"MAGS_CONFIG": str(file)})[0]


def test_the_caller_of_sudo_gets_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "ada"
    home.mkdir()
    entry = pwd.struct_passwd(("ada", "x", os.getuid(), os.getgid(), "", str(home), "/bin/sh"))
    monkeypatch.setattr("pwd.getpwnam", lambda name: entry)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("HOME", str(tmp_path / "root"))
    client_config.save("http://127.0.0.1:1", "t", environment={"SUDO_USER": "ada"})
    assert read_config(home / ".mags" / "config.json")["api_token"] == "t"
    assert read_config(tmp_path / "root" / ".mags" / "config.json")["api_token"] == "t"


def test_purge_removes_what_is_ours_and_shows_what_is_not(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "d")
    assert not clearing.is_installation(layout)
    layout.make()
    layout.lock.touch()
    (layout.host / "vms").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    layout.cache.symlink_to(outside)
    for name in ("control.db", "control.db-wal", "control.db.lock", "bootstrap-token", "nats-users.json"):
        (layout.data / name).touch()
    theirs = layout.data / "notes.txt"
    theirs.touch()
    assert clearing.is_installation(layout)
    assert clearing.remove_data(layout) == [theirs] == list(layout.data.iterdir())
    theirs.unlink()
    assert clearing.remove_data(layout) == [] and not layout.data.exists()
    assert (outside / "file").exists()


def test_the_data_that_a_link_leads_to_is_not_removed_with_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.data.mkdir()
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:  # another file system, as a mount point is
        theirs = Path(elsewhere, "theirs")
        theirs.touch()
        layout.cache.symlink_to(elsewhere)
        assert clearing.remove_data(layout) == [] and not layout.data.exists()
        assert theirs.exists()


def test_the_users_file_goes_only_if_it_is_for_this_server(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    client_config.save("http://127.0.0.1:1", "mine", environment={"MAGS_CONFIG": str(file)})
    for other in ("", "another"):
        client_config.forget(other, environment={"MAGS_CONFIG": str(file)})
        assert file.exists()
    client_config.forget("mine", environment={"MAGS_CONFIG": str(file)})
    client_config.forget("mine", environment={"MAGS_CONFIG": str(file)})
    assert not file.exists()


async def test_down_ends_the_programs_that_a_killed_supervisor_left(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "d")
    layout.make()
    with subprocess.Popen(["sleep", "1000"]) as left:
        pidfiles.write(layout.pid_file("control"), left.pid)
        (layout.run / "edge.pid").write_text("{}")
        assert await clearing.end_programs(layout) == 1
        assert left.wait() == -15
    assert list(layout.run.glob("*.pid")) == []
    assert await clearing.end_programs(layout) == 0
