"""What `/metrics` shows, read from MongoDB and Redis within a second whatever hangs.

Totals come from the counters that every process adds to, never from counting documents. What has to
be counted (what waits, what is processed) is counted in indexes, and less often where that is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from service.clock import ServerClock
from service.concurrency.stale_cache import Known, StaleCache
from service.errors import StoreLate
from service.store import Stores
from service.store.mongo import Document

Number = TypeVar("Number", int, float)
_FRESH_SECONDS = 1.0
_WAIT_SECONDS = 0.6
MOST_SCHEDULES_SHOWN = 200
_STALE_SECONDS = 5.0
"""Older totals are not shown: another process may have shown newer ones, and a counter that goes
back looks like a restart."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """How much there is of what at the moment. None: not known; a queue that is missing in a
    mapping: not known of that queue."""

    depth: Mapping[str, int] | None = None
    """Jobs that are due and wait."""
    scheduled: Mapping[str, int] | None = None
    """Jobs that wait for their time."""
    oldest_seconds: Mapping[str, float] | None = None
    """How long the longest-waiting due job has been due; 0 where none waits."""
    processing: int | None = None
    sweep_age_seconds: float | None = None
    """How long ago the sweep's last tick ended; None also where there never was one."""
    schedules_late_seconds: float | None = None
    """For how long the schedule that is the latest has been due; 0 where none is."""
    schedule_last_run: Mapping[str, float] | None = None
    """When schedules have run last (seconds since 1970), by name, of `MOST_SCHEDULES_SHOWN`."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """None: not known at the moment."""

    counters: Mapping[str, Document] | None
    gauges: Gauges
    workers_alive: int | None
    up: Mapping[str, bool]
    """By dependency."""


class Totals:
    """`ping_redis` raises where Redis is down."""

    def __init__(
        self,
        stores: Stores,
        types_by_queue: Callable[[], Mapping[str, Sequence[str]]],
        clock: ServerClock,
        ping_redis: Callable[[], object],
    ) -> None:
        self._stores, self._types_by_queue, self._clock = stores, types_by_queue, clock
        self._counters = self._cache(stores.counters.read, "counters")
        listing = stores.listing
        # Each by itself: what can't be counted in time takes none of the others away.
        self._gauges: dict[str, StaleCache[Any]] = {
            "depth": self._cache(lambda: self._by_queue(listing.depth), "depth"),
            "scheduled": self._cache(lambda: self._by_queue(listing.scheduled), "scheduled"),
            "oldest_seconds": self._cache(lambda: self._by_queue(self._oldest), "oldest"),
            "processing": self._cache(listing.processing, "processing"),
            "sweep_age_seconds": self._cache(stores.sweep.age_seconds, "sweep"),
            "schedules_late_seconds": self._cache(self._late, "late schedules"),
            "schedule_last_run": self._cache(self._last_runs, "schedules"),
        }
        self._workers = self._cache(lambda: len(stores.workers.alive()), "workers")
        self._redis = self._cache(ping_redis, "redis")

    @staticmethod
    def _cache(read: Callable[[], Any], name: str) -> StaleCache[Any]:
        return StaleCache(read, name=f"{name} metrics", fresh_seconds=_FRESH_SECONDS)

    async def snapshot(self) -> Snapshot:
        """What is known within a second."""
        caches = (self._counters, self._workers, self._redis, *self._gauges.values())
        counters, workers, redis, *gauges = await asyncio.gather(
            *(cache.get(_WAIT_SECONDS) for cache in caches)
        )
        return Snapshot(
            counters=_recent(counters),
            gauges=Gauges(**dict(zip(self._gauges, map(_last, gauges), strict=True))),
            workers_alive=_recent(workers),
            up={"mongodb": workers.error is None, "redis": redis.error is None},
        )

    def _by_queue(self, read: Callable[[Sequence[str], datetime], Number]) -> dict[str, Number]:
        """Leaves out queues for which it takes too long. Raises `StoreUnavailable`, also where it
        takes too long for all."""
        now, known = self._clock.now(), dict[str, Number]()
        late: StoreLate | None = None
        for queue, types in self._all_types().items():
            try:
                known[queue] = read(types, now)
            except StoreLate as error:
                late = error
        if late is not None and not known:
            raise late
        return known

    def _all_types(self) -> dict[str, list[str]]:
        """By queue: the types that are known here, and others that have something pending."""
        by_queue = {queue: list(types) for queue, types in self._types_by_queue().items()}
        known = [name for types in by_queue.values() for name in types]
        for name, queue in self._stores.listing.pending_types(besides=known).items():
            by_queue.setdefault(queue, []).append(name)
        return by_queue

    def _oldest(self, types: Sequence[str], now: datetime) -> float:
        since = self._stores.listing.oldest_due(types, now)
        return max(0.0, (now - since).total_seconds()) if since else 0.0

    def _late(self) -> float:
        now = self._clock.now()
        late = self._stores.schedules.late(now)
        return (now - late[0][1]).total_seconds() if late else 0.0

    def _last_runs(self) -> dict[str, float]:
        runs = self._stores.schedules.last_runs(MOST_SCHEDULES_SHOWN)
        return {name: at.timestamp() for name, at in runs.items()}


def _recent(known: Known[Any]) -> Any:
    return known.value if known.age_seconds < _STALE_SECONDS else None


def _last(known: Known[Any]) -> Any:
    """Counting may take longer than a scrape waits; then the last count is the best there is."""
    slow = known.error is not None and known.error.startswith("no answer")
    return known.value if known.error is None or slow else None
