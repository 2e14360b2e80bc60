"""Messages of netlink, in whatever state they come."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from mags.host.network.watch import _message_types


def message(kind: int, payload: bytes = b"") -> bytes:
    padded = payload + bytes(-len(payload) % 4)
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, 0, 0) + padded


def test_every_message_of_a_packet_is_seen() -> None:
    assert _message_types(message(0xA02, b"table") + message(0xA00) + message(0x10, b"x" * 7)) == {0xA02, 0xA00, 0x10}


@given(st.binary(max_size=200))
def test_no_bytes_keep_it_for_ever(data: bytes) -> None:
    assert len(_message_types(data)) <= len(data) // 16
