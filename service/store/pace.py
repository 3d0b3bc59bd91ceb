"""How fast a change of many may go, so that nobody waits for it."""

from __future__ import annotations

_FIRST, _FEWEST, _MOST = 100, 50, 200
_TARGET_SECONDS = 0.04
"""How long one chunk should take, a good part of which is waiting for MongoDB's journal."""
_SMOOTHING = 0.2
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 4.0
"""As a multiple of what the chunk before took."""


class Pace:
    """After each chunk MongoDB is left alone for as long as the chunk took, and for longer the
    slower it has become: then others are at work. A single slow chunk says little: what counts is
    the (exponential) mean of what each job took."""

    def __init__(self) -> None:
        self.size = _FIRST
        self._mean = 0.0
        self._quickest = float("inf")

    def after(self, count: int, took_seconds: float) -> float:
        """The pause after a chunk of so many, in seconds; from now on `size` is the next one's."""
        each = took_seconds / max(1, count)
        self._mean += (each - self._mean) * (_SMOOTHING if self._mean else 1.0)
        self._quickest = min(self._quickest, self._mean)
        wanted = int(_TARGET_SECONDS / max(self._mean, 1e-6))
        self.size = max(_FEWEST, min(_MOST, wanted))
        slowed = self._mean / self._quickest if self._quickest else 1.0
        return took_seconds * min(_SHORTEST_PAUSE * slowed**2, _LONGEST_PAUSE)
