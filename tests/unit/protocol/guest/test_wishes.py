"""CONFIGURE and EXEC as bytes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import pytest

from mags.protocol.guest import Builtin, Configure, Exec, Jfs, Network, Part, ProtocolError
from mags.protocol.guest.fields import integer, read_fields, text
from mags.protocol.guest.wishes import MAX_SCRIPT
from tests.unit.protocol.guest.vectors import WISHES, lines, unhex

EVERYTHING = Configure(
    clock_ns=1,
    entropy=bytes(64),
    hostname="box",
    network=Network(IPv4Interface("172.16.0.2/30"), IPv4Address("172.16.0.1"), (IPv4Address("172.16.0.1"),)),
    root=True,
    machine_id=bytes(16),
    grow=True,
    jfs=Jfs(IPv4Address("172.16.0.1"), 2049, "/ws", b"root"),
    unmount_jfs=True,
    environment={"A": "b", "C": "d"},
)


def test_exec_is_that_of_the_vectors() -> None:
    assert {words[0]: unhex(words[1]) for words in lines("exec.txt")} == {
        name: wish.encode() for name, wish in WISHES.items()
    }


def test_configure_holds_each_wished_part() -> None:
    fields = list(read_fields(EVERYTHING.encode()))
    assert {Part(tag) for tag, _ in fields} == EVERYTHING.parts() == set(Part)
    values = dict(fields)
    assert values[Part.NETWORK] == bytes((172, 16, 0, 2, 30, 172, 16, 0, 1, 172, 16, 0, 1))
    assert values[Part.JFS] == bytes((172, 16, 0, 1)) + (2049).to_bytes(2, "little") + b"\4root/ws"
    assert [value for tag, value in fields if tag == Part.ENVIRONMENT] == [b"A=b", b"C=d"]


def test_the_size_of_the_disk_goes_with_what_needs_it() -> None:
    with_size = dict(read_fields(Configure(root=True, grow=True, disk_bytes=5 << 30).encode()))
    assert with_size == {Part.ROOT: (5 << 30).to_bytes(8, "little"), Part.GROW: (5 << 30).to_bytes(8, "little")}
    assert dict(read_fields(EVERYTHING.encode()))[Part.ROOT] == b""
    assert Configure(disk_bytes=1).encode() == b"" and Configure(disk_bytes=1).parts() == frozenset()


def test_an_old_mount_goes_before_a_new_one_comes() -> None:
    order = [tag for tag, _ in read_fields(EVERYTHING.encode())]
    assert order.index(Part.UNMOUNT_JFS) < order.index(Part.JFS)
    assert order.index(Part.ROOT) < order.index(Part.GROW)


def test_nothing_wished_is_nothing_said() -> None:
    assert Configure().encode() == b"" and Configure().parts() == frozenset()


@pytest.mark.parametrize(
    "wish",
    [
        Configure(entropy=bytes(31)),
        Configure(entropy=bytes(513)),
        Configure(hostname="a\0b"),
        Configure(machine_id=bytes(15)),
        Configure(jfs=Jfs(IPv4Address("1.2.3.4"), 1, "a\0b")),
        Configure(jfs=Jfs(IPv4Address("1.2.3.4"), 1, "/a", bytes(65))),
        Configure(environment={"": "x"}),
        Configure(environment={"A=B": "x"}),
        Configure(environment={"A": "x\0y"}),
        Exec(),
        Exec(argv=["a"], builtin=Builtin.SFTP, script=b"x"),
        Exec(script=b"x" * (MAX_SCRIPT + 1)),
        Exec(argv=["a\0b"]),
        Exec(argv=["a"], window=0),
        Exec(argv=["a"], window=2**30),
        Exec(argv=["a"], environment={"A=": "b"}),
    ],
)
def test_what_cannot_be_said_is_refused(wish: Configure | Exec) -> None:
    with pytest.raises(ValueError):
        wish.encode()


def test_names_that_are_no_text_survive() -> None:
    ((_, value),) = [field for field in read_fields(Exec(argv=["\udcff"]).encode()) if field[0] == 1]
    assert value == b"\xff" and text(value) == "\udcff"


@pytest.mark.parametrize("payload", [b"\x01", b"\x01\x01\0\0\0", b"\x01\xff\xff\xff\xff"])
def test_broken_fields_are_an_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(read_fields(payload))


def test_values_have_bounds() -> None:
    with pytest.raises(ProtocolError):
        integer(b"123", 4)
    with pytest.raises(ProtocolError):
        text(b"x" * 4097)
