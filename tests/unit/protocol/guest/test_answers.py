"""What a guest says, decoded with suspicion."""

from __future__ import annotations

import struct

import pytest

from mags.protocol.guest import Entry, Exit, Hello, Offsets, Output, Part, ProtocolError, Stats
from mags.protocol.guest.answers import (
    decode_configured,
    decode_entries,
    decode_error,
    decode_exit,
    decode_output,
    decode_pong,
    decode_results,
)
from mags.protocol.guest.fields import FieldWriter


def hello(*processes: bytes, version: int = 1, **more: bytes) -> bytes:
    fields = FieldWriter()
    fields.add_text(1, "0.1.0")
    fields.add_text(2, "boot")
    fields.add_int(3, 1234)
    fields.add_int(5, 9, 4)
    fields.add_int(6, 1, 4)
    for process in processes:
        fields.add(4, process)
    return bytes(8) + version.to_bytes(2, "little") + fields.getvalue() + more.get("tail", b"")


def process(
    id: int = 3, window: int = 100, out: tuple[int, int] = (10, 20), stdin: tuple[int, int] = (1, 65536)
) -> bytes:
    return struct.pack("<IIB3xI8Q", id, 44, 1, window, *out, 0, 0, 0, 0, *stdin)


@pytest.mark.parametrize(("id", "last"), [(10, 9), (3, 1 << 31), (3, (1 << 32) - 1)])
def test_ids_that_leave_no_room_for_new_ones_are_refused(id: int, last: int) -> None:
    fields = FieldWriter()
    fields.add(4, process(id))
    fields.add_int(5, last, 4)
    with pytest.raises(ProtocolError, match="id"):
        Hello.decode(bytes(8) + (1).to_bytes(2, "little") + fields.getvalue())


def test_a_hello_tells_what_the_agent_holds() -> None:
    said = Hello.decode(hello(process()))
    assert (said.protocol, said.agent_version, said.boot_id, said.uptime_ms) == (1, "0.1.0", "boot", 1234)
    assert (said.last_process_id, said.root_mounted) == (9, True)
    (held,) = said.processes
    assert (held.id, held.pid, held.running, held.window) == (3, 44, False, 100)
    assert (held.acknowledged, held.written) == (Offsets(10), Offsets(20))
    assert (held.stdin_received, held.stdin_limit) == (1, 65536)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(9),
        hello(version=2),
        hello(process(), process()),
        hello(*(process(id=n) for n in range(1, 1026))),
        hello(process(id=0)),
        hello(process(out=(20, 10))),
        hello(process(out=(0, 101))),
        hello(process(window=0, out=(0, 0))),
        hello(process(window=2**31)),
        hello(process(stdin=(2, 1))),
        hello(process()[:-1]),
        hello(tail=b"\x63\0\0\0\0"),
        hello(tail=b"\x01"),
        hello(tail=b"\x05\x01\0\0\0\0"),
    ],
)
def test_an_impossible_hello_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        Hello.decode(payload)


def test_configured_tells_each_part() -> None:
    good, bad = decode_configured(b"\x01\x02\0\0\0\0\0" + b"\x05\x06\0\0\0\x16\0nope")
    assert (good.part, good.errno, good.message) == (Part.CLOCK, 0, "")
    assert (bad.part, bad.errno, bad.message) == (Part.ROOT, 22, "nope")


@pytest.mark.parametrize("payload", [b"\x63\x02\0\0\0\0\0", b"\x01\x02\0\0\0\0\0" * 2, b"\x01\x01\0\0\0\0", b"\x01"])
def test_an_impossible_configured_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_configured(payload)


def test_output_has_a_stream_and_an_offset() -> None:
    assert decode_output(b"\x02" + (7).to_bytes(8, "little") + b"abc") == Output(2, 7, b"abc")
    for payload in (b"", bytes(9), b"\x04" + bytes(9), b"\0" + bytes(9), b"\x01" + bytes(8)):
        with pytest.raises(ProtocolError):
            decode_output(payload)


def exit_(kind: int, value: int, timed_out: int = 0, text: bytes = b"") -> bytes:
    return struct.pack("<BB2xI6Q", kind, timed_out, value, 5, 6, 7, 8, 9, 10) + text


@pytest.mark.parametrize(
    ("payload", "code", "signal", "error", "exit_code"),
    [
        (exit_(0, 3), 3, None, None, 3),
        (exit_(1, 9), None, 9, None, 137),
        (exit_(1, 9, 1), None, 9, None, 124),
        (exit_(2, 2, text=b"No such file"), None, None, 2, 127),
        (exit_(2, 13), None, None, 13, 126),
    ],
)
def test_an_exit_is_one_of_three(
    payload: bytes, code: int | None, signal: int | None, error: int | None, exit_code: int
) -> None:
    ended = decode_exit(payload)
    assert (ended.code, ended.signal, ended.error, ended.exit_code) == (code, signal, error, exit_code)
    assert (ended.duration_ms, ended.max_rss_kb, ended.cpu_ms, ended.written) == (5, 6, 7, Offsets(8, 9, 10))


@pytest.mark.parametrize(
    "payload",
    [b"", exit_(3, 0), exit_(0, 256), exit_(1, 0), exit_(1, 65), exit_(0, 0, 2), exit_(2, 1, text=b"x" * 513)],
)
def test_an_impossible_exit_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_exit(payload)


def test_an_exit_without_anything_is_a_failure() -> None:
    assert Exit(None, None, False, 0).exit_code == 1


def test_entries_are_cut_from_a_stream() -> None:
    one = struct.pack("<IIIQqHH", 0o120777, 1, 2, 3, -4, 1, 2) + b"a" + b"bc"
    two = struct.pack("<IIIQqHH", 0o100644, 1, 2, 3, 4, 2, 0) + b"\xffz"
    entries, taken = decode_entries(one + two + one[:-1])
    assert taken == len(one + two)
    assert entries[0] == Entry("a", 0o120777, 3, 1, 2, -4, "bc")
    assert (entries[0].type, entries[1].type, entries[1].name, entries[1].permissions) == (
        "symlink",
        "file",
        "\udcffz",
        0o644,
    )
    assert [Entry("", mode, 0, 0, 0, 0).type for mode in (0o40755, 0o10644)] == ["directory", "other"]


def test_entries_have_bounds() -> None:
    for name, target in ((256, 0), (0, 4097)):
        with pytest.raises(ProtocolError):
            decode_entries(struct.pack("<IIIQqHH", 0, 0, 0, 0, 0, name, target))


def test_results_are_cut_from_a_stream() -> None:
    one = struct.pack("<HHI", 2, 4, 3) + b"gone" + b"abc"
    results, taken = decode_results(one + one[:5])
    assert taken == len(one)
    assert (results[0].errno, results[0].message, results[0].data) == (2, "gone", b"abc")
    assert decode_results(one[:-1]) == ([], 0)
    for head in (struct.pack("<HHI", 0, 513, 0), struct.pack("<HHI", 0, 0, 8193)):
        with pytest.raises(ProtocolError):
            decode_results(head)


def test_short_answers_have_a_fixed_size() -> None:
    assert decode_pong(struct.pack("<QQ", 5, 6)) == (5, 6)
    assert Stats.decode(struct.pack("<12Q", *range(1000, 13000, 1000))).load_1 == 6.0
    assert decode_error(b"\x02\0gone") == (2, "gone")
    for decoder in (decode_pong, Stats.decode, decode_error):
        with pytest.raises(ProtocolError):
            decoder(b"\x01")
