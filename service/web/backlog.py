"""Back-pressure: whether so many jobs wait that no more should be taken.

The count is taken in the background and carried on by what this process accepts in between, so that
a request never waits for it. While it can't be had, the last one is carried on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from service.concurrency.stale_cache import StaleCache
from service.errors import BacklogFull

_FRESH_SECONDS = 0.5
_LOOK_SECONDS = 0.05
_RETRY_SECONDS = 5
_OLD_SECONDS = 30.0
_SHARE = 10
"""A count is slow after a busy time: MongoDB passes over what changed in the last minutes. While
less than a tenth of the room is used up, an old count will do."""


class Backlog:
    """`count()` asks MongoDB how many jobs are pending; it may be slow or raise."""

    def __init__(self, count: Callable[[], int], limit: int) -> None:
        self._limit = limit
        self._taken = self._taken_before = 0
        self._count: StaleCache[tuple[int, int]] = StaleCache(
            lambda: self._counted(count), name="backlog", fresh_seconds=_FRESH_SECONDS
        )
        self._counted_at = self._look_at = float("-inf")
        # Before the first count it is assumed that none waits.
        self._room = limit
        """How many more could have been taken when the last count began."""
        self._most = limit
        """How many this process may take in all, from its start on."""

    def check(self, more: int = 1) -> None:
        """Takes note of `more` events. Raises `BacklogFull` where the limit is reached."""
        if not self._limit:
            return
        if time.monotonic() >= self._look_at:
            self._look()
        if self._taken + more > self._most:
            raise BacklogFull(f"{self._limit} events wait already", _RETRY_SECONDS)
        self._taken += more

    def _look(self) -> None:
        """Asking whether there is a new count costs more than all the rest here."""
        self._look_at = time.monotonic() + _LOOK_SECONDS
        known = self._count.known
        used = self._room - (self._most - self._taken)
        if known.age_seconds > _OLD_SECONDS or used >= self._room / _SHARE:
            self._taken_before = self._taken
            known = self._count.refresh()
        if known.value is not None and known.read_at != self._counted_at:
            counted, taken_before = known.value
            self._counted_at = known.read_at
            self._room = self._limit - counted
            self._most = taken_before + self._room

    def _counted(self, count: Callable[[], int]) -> tuple[int, int]:
        """How many wait, and how many this process had taken when the count began. What was taken
        later may be missing in the count."""
        taken_before = self._taken_before
        return count(), taken_before
