"""The text of the rules: what depends on settings. Whether they hold is tested with packets."""

from __future__ import annotations

from mags.host.network.addresses import Subnet
from mags.host.network.rules import HostServices, Policy, host_rules, namespace_rules

SUBNET = Subnet.parse("10.231.0.0/16")


def test_mail_is_refused_in_both_places_unless_allowed() -> None:
    for text in (
        namespace_rules(SUBNET.pair(0), Policy()),
        host_rules("abcdef", SUBNET, Policy(), HostServices()),
    ):
        assert "tcp dport 25 goto refuse" in text
    for text in (
        namespace_rules(SUBNET.pair(0), Policy(smtp=True)),
        host_rules("abcdef", SUBNET, Policy(smtp=True), HostServices()),
    ):
        assert "dport 25" not in text


def test_what_is_blocked_comes_before_what_is_allowed_and_that_before_what_is_forbidden() -> None:
    text = namespace_rules(SUBNET.pair(0), Policy(allowed=("10.1.0.0/16",), blocked=("1.2.3.0/24",)))
    assert text.index("@blocked") < text.index("@allowed") < text.index("@forbidden")
    assert "elements = { 10.1.0.0/16 }" in text and "elements = { 1.2.3.0/24 }" in text


def test_services_are_led_to_their_ports_and_shut_for_others() -> None:
    text = host_rules("abcdef", SUBNET, Policy(), HostServices(udp={53: 4000}, tcp={53: 4001, 2049: 4002}))
    assert "udp dport 53 redirect to :4000" in text
    assert "tcp dport 2049 redirect to :4002" in text
    assert 'iifname != "lo" tcp dport 4002 drop' in text


def test_everything_of_an_installation_bears_its_id() -> None:
    text = host_rules("abcdef", SUBNET, Policy(), HostServices())
    assert "table inet mags_abcdef" in text and 'iifname "mgabcdef-*"' in text
