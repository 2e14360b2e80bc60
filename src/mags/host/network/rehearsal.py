"""Makes a VM's network where nobody sees it, to know whether this machine can."""

from __future__ import annotations

import os
import threading

from mags.host.network import kernel, links, rules
from mags.host.network.addresses import TAP, Subnet
from mags.host.network.workshop import apply_rules


def rehearse() -> None:
    """Namespace, tap, veth and both sets of rules, in a namespace that ends with this call.

    Raises NetworkError or OSError, as making a real one would.
    """
    failure: list[Exception] = []

    def work() -> None:
        try:
            kernel.unshare()
            subnet = Subnet.parse("10.231.0.0/30")
            pair = subnet.pair(0)
            apply_rules(rules.namespace_rules(pair, rules.Policy()))
            apply_rules(rules.host_rules("000000", subnet, rules.Policy(), rules.HostServices({53: 53}, {53: 53})))
            tap = kernel.open_tap(TAP)
            here = os.open(kernel.OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
            try:
                links.wire_namespace(pair, "mg000000-0", here)
            finally:
                os.close(here)
                os.close(tap)
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="rehearsal")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
