"""Hints from their lanes in Redis."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence

import redis

from service.crash import crash_point
from service.job import Hint
from service.queue.lanes import Lane, Lanes
from service.worker.claiming.shares import first_ones

_log = logging.getLogger(__name__)


class RedisSource:
    """Every method but `return_unclaimed` raises `redis.RedisError`. `pour(lanes)` fills lanes from
    MongoDB, without keeping the caller; `junk(count)` is told of what was no hint."""

    def __init__(
        self,
        lanes: Lanes,
        queues: Sequence[str],
        types: Collection[str],
        *,
        pour: Callable[[Sequence[Lane]], None],
        junk: Callable[[int], None],
    ) -> None:
        self._lanes, self._queues, self._types = lanes, list(queues), types
        self._pour, self._junk = pour, junk
        self._rng = random.Random()
        self.waiting: set[Lane] = set()

    def take(self, wants: Mapping[Lane, int], most: int) -> list[Hint]:
        first = first_ones(min(most, max(1, sum(wants.values()))), self._rng)
        taken = self._lanes.take(wants, most, first, self._queues)
        crash_point("worker.after_fetch")
        self.waiting = {lane for lane in taken.waiting if self._is_ours(lane)}
        if taken.to_pour:
            self._pour(taken.to_pour)
        if taken.junk:
            self._junk(taken.junk)
        return list({hint.job_id: hint for hint in taken.hints}.values())

    def _is_ours(self, lane: Lane) -> bool:
        return lane.queue in self._queues and lane.type in self._types

    def return_unclaimed(self, hints: Sequence[Hint], *, wake: bool) -> None:
        """What can't be put back is due and has no hint, which the dispatcher finds."""
        try:
            self._lanes.give_back(hints, wake=wake)
        except redis.RedisError as error:
            _log.warning("%d hints are left to the sweep: %s", len(hints), error)
