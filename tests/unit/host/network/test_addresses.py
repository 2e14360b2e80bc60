"""Addresses of VMs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.host.network.addresses import FORBIDDEN, Subnet


@given(st.integers(16, 30), st.data())
def test_pairs_lie_in_the_subnet_and_never_overlap(prefix: int, data: st.DataObject) -> None:
    subnet = Subnet.parse(f"10.64.0.0/{prefix}")
    one, other = (data.draw(st.integers(0, subnet.size - 1)) for _ in range(2))
    pair = subnet.pair(one)
    assert subnet.holds(pair.host) and subnet.holds(pair.address)
    assert IPv4Address(pair.address) == IPv4Address(pair.host) + 1
    if one != other:
        assert not {pair.host, pair.address} & {subnet.pair(other).host, subnet.pair(other).address}


def test_the_first_address_is_nobodys() -> None:
    assert Subnet.parse("10.231.0.0/16").pair(0).host == "10.231.0.2"


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        Subnet.parse("10.231.0.0/29").pair(index)


@pytest.mark.parametrize("text", ["8.8.8.0/24", "10.0.0.0/31", "10.0.0.1/16", "172.16.0.0/16", "fd00::/64", "x", ""])
def test_a_subnet_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Subnet.parse(text)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "10.1.2.3", "192.168.1.1", "172.31.255.255", "100.127.0.1", "224.0.0.251",
     "255.255.255.255", "0.0.0.0", "198.19.0.1"],
)  # fmt: skip
def test_what_is_not_the_internet_is_forbidden(address: str) -> None:
    assert any(IPv4Address(address) in IPv4Network(network) for network in FORBIDDEN)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "100.128.0.1", "172.32.0.1", "223.255.255.255"])
def test_the_internet_is_not_forbidden(address: str) -> None:
    assert not any(IPv4Address(address) in IPv4Network(network) for network in FORBIDDEN)


def test_what_is_no_address_is_held_by_no_subnet() -> None:
    assert not Subnet.parse("10.231.0.0/16").holds("::1")
