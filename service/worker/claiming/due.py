"""What is due, straight from MongoDB: where Redis is away, or holds only a part of the backlog."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from service.job import Hint
from service.worker.claiming.shares import SHARES, shared_out
from service.worker.claiming.supply import Supply

_ANEW_SECONDS = (1.0, 10.0)
_SHARE = 50
"""Starting anew has to pass over the history of all that was done in the last minutes: the longer
that takes, the less often."""
_EMPTY_SECONDS = 0.1
"""So long a priority that had nothing is passed over, where another one has something."""


class Frontier:
    """How far into the backlog a consumer has come, by priority and types: since when the oldest
    jobs that it last found had been due. Now and then it starts anew, for what others left."""

    def __init__(self) -> None:
        self._oldest: dict[tuple[str, tuple[str, ...]], datetime | None] = {}
        self._empty_until: dict[tuple[str, tuple[str, ...]], float] = {}
        self._anew_at = 0.0

    def was_empty(self, priority: str, types: Sequence[str] = ()) -> bool:
        """Whether nothing was found there just now."""
        return time.monotonic() < self._empty_until.get((priority, tuple(types)), 0.0)

    def since(self, priority: str, types: Sequence[str] = ()) -> datetime | None:
        if time.monotonic() >= self._anew_at:
            self._oldest.clear()
            self._anew_at = time.monotonic() + _ANEW_SECONDS[0]
        return self._oldest.get((priority, tuple(types)))

    def reached(
        self,
        priority: str,
        oldest: datetime | None,
        types: Sequence[str] = (),
        *,
        took_seconds: float = 0.0,
    ) -> None:
        """None (nothing found) starts anew."""
        self._oldest[priority, tuple(types)] = oldest
        empty_until = time.monotonic() + _EMPTY_SECONDS if oldest is None else 0.0
        self._empty_until[priority, tuple(types)] = empty_until
        pause = min(_SHARE * took_seconds, _ANEW_SECONDS[1])
        self._anew_at = max(self._anew_at, time.monotonic() + pause)


class DueJobs:
    """The due jobs of one queue, for one consumer."""

    def __init__(self, supply: Supply, queue: str) -> None:
        self._supply, self._queue = supply, queue
        self._frontier = Frontier()

    def oldest(self, types: Sequence[str], first: Sequence[int], most: int) -> list[Hint]:
        """Up to `most` jobs of these types, `first` ones of each priority before the rest; other
        workers look at other parts of the backlog."""
        index, count = self._supply.position
        skip = index * most if count > 1 else 0
        empty = {p for p in SHARES if self._frontier.was_empty(p, types)}
        found = [[] if p in empty else self._of(p, most, skip, types) for p in SHARES]
        if empty and not any(found):  # whoever finds nothing anywhere goes by that
            found = [self._of(p, most, skip, types) for p in SHARES]
        return shared_out(found, first, most)

    def _of(self, priority: str, limit: int, skip: int, types: Sequence[str]) -> list[Hint]:
        since, began = self._frontier.since(priority, types), time.monotonic()
        found = self._supply.store.waiting.due(
            types,
            priority,
            self._supply.clock.now(),
            limit=limit,
            skip=skip,
            since=since,
        )
        took = time.monotonic() - began if since is None else 0.0
        self._frontier.reached(priority, found.oldest, types, took_seconds=took)
        if not found.hints and skip:
            return self._of(priority, limit, 0, types)
        return found.hints
