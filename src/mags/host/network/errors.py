"""What can go wrong with the networks of VMs.

NetworkError
├── NetworkUnavailable   this machine cannot give VMs a network (no rights, no kernel support, no nft)
├── NetworkExhausted     every address of the subnet is in use
└── NetworkMissing       the namespace that was asked for is not there
"""

from __future__ import annotations


class NetworkError(Exception):
    """The text is one sentence that says what failed and what to do."""


class NetworkUnavailable(NetworkError):
    """A namespace cannot be made here."""


class NetworkExhausted(NetworkError):
    """No address is free in the subnet of VMs."""


class NetworkMissing(NetworkError):
    """There is no such namespace of ours."""
