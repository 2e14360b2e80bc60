"""The kernel's memory of connections (conntrack), which outlives who had them.

A VM that dies closes nothing: what it had open would stay established for five days, fill the table, and lead a
connection of the next VM with its address, if it has the same port, to where the old one went.
"""

from __future__ import annotations

import errno
import logging

from pyroute2 import NFCTSocket
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

log = logging.getLogger(__name__)


def forget(address: str) -> int:
    """Forget the connections that an IPv4 address began; how many there were. Some 5 ms, in the calling thread's
    network namespace. OSError where the kernel can't."""
    count = 0
    with NFCTSocket() as netlink:
        try:
            for entry in list(netlink.dump(tuple_orig=NFCTAttrTuple(saddr=address))):
                found = NFCTAttrTuple.from_netlink(entry["nfgen_family"], entry.get_attr("CTA_TUPLE_ORIG"))
                if found.saddr == address:  # a kernel before 5.8 tells of all
                    count += _forgotten(netlink, found)
        except NetlinkError as error:
            raise OSError(error.code, errno.errorcode.get(error.code, "netlink")) from error
    return count


def _forgotten(netlink: NFCTSocket, entry: NFCTAttrTuple) -> bool:
    try:
        netlink.entry("del", tuple_orig=entry)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise
        return False  # it has just ended by itself
    return True
