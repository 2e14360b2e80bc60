"""The few system calls that make and enter network namespaces and tap devices.

All of these act on the calling thread only. `unshare` and `enter` are for threads of our own: the thread of the event
loop never leaves its namespace.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNET = 0x40000000
MS_BIND = 4096
MNT_DETACH = 2

# <linux/if_tun.h>
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000

OWN_NETNS = Path("/proc/thread-self/ns/net")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def enter(netns: Path | int) -> None:
    """Move this thread into a network namespace, given as a file or a descriptor."""
    if isinstance(netns, int):
        _check(_libc.setns(netns, CLONE_NEWNET), "setns")
        return
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, CLONE_NEWNET), str(netns))
    finally:
        os.close(descriptor)


def unshare() -> None:
    """Move this thread into a new, empty network namespace."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare")


def pin(path: Path) -> None:
    """Keep this thread's network namespace alive, under a name. Raises FileExistsError if the name is taken."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o400))
    try:
        _check(_libc.mount(bytes(OWN_NETNS), bytes(path), b"none", MS_BIND, None), str(path))
    except BaseException:
        path.unlink()
        raise


def unpin(path: Path) -> None:
    """Undo `pin`; the namespace ends with the last process in it. Harmless if repeated."""
    _libc.umount2(bytes(path), MNT_DETACH)
    # Removing the name also detaches copies of the mount in the mount namespaces of other processes.
    path.unlink(missing_ok=True)


def pinned(path: Path) -> bool:
    """Whether a namespace is alive under this name."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def open_tap(name: str, *, owner: int | None = None, persist: bool = False) -> int:
    """A descriptor of tap device `name` in this thread's namespace, made if it is not there. The caller closes it.

    owner: the user who may open the device by name. persist: the device outlives its descriptors.
    Raises OSError (EBUSY) while another process holds the device.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if owner is not None:
            fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
        if persist:
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_sysctl(name: str, value: str) -> None:
    """Set net.* of this thread's namespace; `name` with slashes. Does nothing where it already has the value."""
    path = Path("/proc/sys/net") / name
    if path.read_text().strip() != value:
        path.write_text(value)
