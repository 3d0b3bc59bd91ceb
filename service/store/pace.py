"""How fast a change of many may go, so that nobody waits for it."""

from __future__ import annotations

_FIRST, _FEWEST, _MOST = 100, 50, 500
_TARGET_SECONDS = 0.03
"""How long one chunk should take: whoever comes meanwhile waits for no more than that."""
_LONGEST_PAUSE = 4.0
"""As a multiple of what the chunk before took."""


class Pace:
    """After each chunk MongoDB is left alone for as long as the chunk took, and for longer the
    slower it has become: then others are at work."""

    def __init__(self) -> None:
        self.size = _FIRST
        self._quickest = float("inf")

    def after(self, count: int, took_seconds: float) -> float:
        """The pause after a chunk of so many, in seconds; from now on `size` is the next one's."""
        each = took_seconds / max(1, count)
        self._quickest = min(self._quickest, each)
        slowed = each / self._quickest if self._quickest else 1.0
        wanted = int(self.size * _TARGET_SECONDS / max(took_seconds, 1e-6))
        self.size = max(_FEWEST, min(_MOST, 2 * self.size, wanted))
        return took_seconds * min(slowed, _LONGEST_PAUSE)
