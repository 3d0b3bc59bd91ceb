"""Due jobs straight from MongoDB, where Redis is away."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from service.job import Hint
from service.queue.lanes import Lane
from service.worker.claiming.shares import SHARES, first_ones, shared_out
from service.worker.claiming.supply import Supply

_ANEW_SECONDS = (1.0, 10.0)
_SHARE = 50
"""Starting anew has to pass over the history of all that was done in the last minutes: the longer
that takes, the less often."""
_LOOKS = 3


class Frontier:
    """How far into the backlog this process has come, by priority and types: since when the oldest
    jobs that it last found had been due. Now and then it starts anew, for what others left."""

    def __init__(self) -> None:
        self._oldest: dict[tuple[str, tuple[str, ...]], datetime | None] = {}
        self._anew_at = 0.0

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
        pause = min(_SHARE * took_seconds, _ANEW_SECONDS[1])
        self._anew_at = max(self._anew_at, time.monotonic() + pause)


class MongoSource:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self._frontier = Frontier()
        self._rng = random.Random()
        self.waiting: set[Lane] = set()

    def take(self, wants: Mapping[Lane, int], most: int) -> list[Hint]:
        """Types of which there is more than wanted are left out of a second look, so that they hide
        nobody."""
        left = {lane.type: count for lane, count in wants.items() if count > 0}
        taken: dict[str, Hint] = {}
        for _ in range(_LOOKS):
            types = [name for name, count in left.items() if count > 0]
            found = self._oldest(types, most) if types else []
            refused = 0
            for hint in found:
                if left[hint.type] <= 0:
                    refused += 1
                elif hint.job_id not in taken:
                    left[hint.type] -= 1
                    taken[hint.job_id] = hint
            if not refused:
                break
        self.waiting = {Lane(hint.queue, hint.type) for hint in taken.values()}
        return list(taken.values())[:most]

    def _oldest(self, types: Sequence[str], most: int) -> list[Hint]:
        """Up to `most` jobs of these types, by their priorities; other workers look at other parts
        of the backlog."""
        index, count = self._supply.position
        skip = index * most if count > 1 else 0
        found = [self._of(priority, most, skip, types) for priority in SHARES]
        return shared_out(found, first_ones(most, self._rng), most)

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

    def return_unclaimed(self, hints: Sequence[Hint], *, wake: bool) -> None:
        """They were never taken away."""
