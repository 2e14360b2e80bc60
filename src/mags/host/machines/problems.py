"""What goes wrong below, said as the `Problem` that a caller gets.

GuestError       the agent refused: by its errno
ChannelClosed    the VM is gone under the request
VmmError         the hypervisor could not
NetworkError     no network for the VM
UidsExhausted    no user id for the VM
ImageError       there is no such image
OSError          the host's disk
TimeoutError     the VM did not answer in time
"""

from __future__ import annotations

import errno

from mags.host.guest import ChannelClosed, GuestError
from mags.host.images import ImageError
from mags.host.isolation import UidsExhausted
from mags.host.network import NetworkError, NetworkExhausted
from mags.host.vmm.driver import VmmError
from mags.protocol.errors import Problem

_BY_ERRNO = {
    errno.ENOENT: "not_found",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.EROFS: "forbidden",
    errno.EEXIST: "conflict",
    errno.EISDIR: "conflict",
    errno.ENOTDIR: "conflict",
    errno.ENOTEMPTY: "conflict",
    errno.EBUSY: "conflict",
    errno.ECONNREFUSED: "conflict",
    errno.EINVAL: "invalid",
    errno.ELOOP: "invalid",
    errno.ENAMETOOLONG: "invalid",
    errno.ENOSPC: "too_large",
    errno.EFBIG: "too_large",
    errno.EDQUOT: "too_large",
}


def as_problem(error: BaseException) -> Problem:
    """The problem to answer with. Anything unexpected is `internal`; log it."""
    match error:
        case Problem():
            return error
        case GuestError():
            return Problem(_BY_ERRNO.get(error.number, "guest_failed"), f"The VM says: {error}.")
        case ChannelClosed():
            return Problem("guest_failed", f"The VM ended during the request: {error}.")
        case NetworkExhausted() | UidsExhausted():
            return Problem("no_capacity", str(error), retry_after=5)
        case ImageError():
            return Problem("invalid", str(error))
        case VmmError() | NetworkError():
            return Problem("unavailable", str(error))
        case TimeoutError():
            return Problem("guest_failed", "The VM did not answer in time; try again.")
        case OSError():
            return Problem("unavailable", f"The host can't do it now: {error.strerror or error}.")
        case _:
            return Problem("internal", f"The host failed: {type(error).__name__}. Its log says more.")
