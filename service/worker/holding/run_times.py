"""How long runs take, by type."""

from __future__ import annotations

import time

_NEWEST_SHARE = 0.1
_SHORTEST_SECONDS = 1e-5
_STALE_SECONDS = 0.25


class RunTimes:
    """An exponential average, in seconds."""

    def __init__(self) -> None:
        self._mean: dict[str, float] = {}
        self._newest = float("-inf")

    def add(self, name: str, seconds: float, *, on_thread: bool = True) -> None:
        if on_thread:
            self._newest = time.monotonic()
        mean = self._mean.get(name, seconds)
        self._mean[name] = max(_SHORTEST_SECONDS, mean + _NEWEST_SHARE * (seconds - mean))

    def mean(self, name: str) -> float:
        """Of a type that never ran, infinite: it may be a slow one."""
        return self._mean.get(name, float("inf"))

    def are_stale(self) -> bool:
        """Whether no run on a thread has ended for so long that those that go on are longer than
        the mean says."""
        return time.monotonic() - self._newest > _STALE_SECONDS
