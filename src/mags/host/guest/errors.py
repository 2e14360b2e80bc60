"""What can go wrong with a guest.

Exception
+-- GuestError       the agent answered, with an error: the wish failed, the channel is fine
+-- ChannelClosed    the VM is gone, or the guest broke the protocol: nothing more will come
"""

from __future__ import annotations

import errno


class GuestError(Exception):
    """The agent refused or failed a wish."""

    def __init__(self, number: int, message: str) -> None:
        self.number = number
        self.errno_name = errno.errorcode.get(number, f"E{number}")
        self.message = message
        super().__init__(f"{message} ({self.errno_name})")


class ChannelClosed(Exception):
    """The channel to the guest has ended; the reason is the argument."""
