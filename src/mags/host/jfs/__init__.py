"""/jfs: a directory of a workspace, served to its VM by NFSv3 (RFC 1813) over the VM's own network.

    exports     Exports: one listener and one directory a VM     server       connections, calls, replies
    procedures  NFS and MOUNT: arguments in, results out         files        what they do, confined to the export
    handles     signed file handles      roots        what they lead to, also when the volume is mounted anew
    openfiles, listings                  what is kept between calls
    permit      may the guest change anything?
    rpc, xdr, protocol, values           the wire: pure

The server is a security border: everything that comes in was written by a guest. Names are resolved one at a time,
beneath the export, never through a link; handles are signed for one export.
"""

from mags.host.jfs.exports import Export, Exports
from mags.host.jfs.permit import Permit

__all__ = ["Export", "Exports", "Permit"]
