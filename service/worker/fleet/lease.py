"""Whether this process may still count on its jobs, by its own monotonic clock."""

from __future__ import annotations

import time


class Lease:
    """Valid for `seconds` after the last heartbeat that was written, counted from its sending.

    A process that was frozen, or cut off from MongoDB, for longer than that must take its jobs for
    lost: others may have them by now.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renewed = float("-inf")
        """Monotonic time at which the last written heartbeat was sent."""

    def renew(self, sent: float) -> None:
        """`sent`: the monotonic time before the heartbeat was sent."""
        self.renewed = sent

    @property
    def is_valid(self) -> bool:
        return time.monotonic() - self.renewed < self._seconds
