"""What `/metrics` shows, read from MongoDB and Redis within a second whatever hangs.

Totals come from the counters that every process adds to, never from counting documents. What has to
be counted (what waits, what is processed) is counted in indexes, and less often where that is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.clock import ServerClock
from service.mongo import Document
from service.readings import Known, Reading
from service.store import Stores

_FRESH_SECONDS = 1.0
_WAIT_SECONDS = 0.6
_STALE_SECONDS = 5.0
"""Older totals are not shown: another process may have shown newer ones, and a counter that goes
back looks like a restart."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """How much there is of what at the moment; by queue where it says so."""

    depth: Mapping[str, int] = field(default_factory=dict)
    """Jobs that are due and wait."""
    scheduled: Mapping[str, int] = field(default_factory=dict)
    """Jobs that wait for their time."""
    oldest_seconds: Mapping[str, float] = field(default_factory=dict)
    """How long the longest-waiting due job has been due; 0 where none waits."""
    processing: int = 0
    sweep_age_seconds: float | None = None
    """How long ago the sweep's last tick ended; None: there never was one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """None: not known at the moment."""

    counters: Mapping[str, Document] | None
    gauges: Gauges | None
    workers_alive: int | None
    up: Mapping[str, bool]
    """By dependency."""


class Totals:
    """`ping_redis` raises where Redis is down."""

    def __init__(
        self,
        stores: Stores,
        queues: Callable[[], list[str]],
        clock: ServerClock,
        ping_redis: Callable[[], object],
    ) -> None:
        self._stores, self._queues, self._clock = stores, queues, clock
        self._counters = self._reading(stores.counters.read, "counters")
        self._gauges = self._reading(self._read_gauges, "gauges")
        self._workers = self._reading(lambda: len(stores.workers.alive()), "workers")
        self._redis = self._reading(ping_redis, "redis")

    @staticmethod
    def _reading(read: Callable[[], Any], name: str) -> Reading[Any]:
        return Reading(read, name=f"{name} metrics", fresh_seconds=_FRESH_SECONDS)

    async def snapshot(self) -> Snapshot:
        """What is known within a second."""
        readings = (self._counters, self._gauges, self._workers, self._redis)
        counters, gauges, workers, redis = await asyncio.gather(
            *(reading.get(_WAIT_SECONDS) for reading in readings)
        )
        return Snapshot(
            counters=_recent(counters),
            gauges=_last(gauges),
            workers_alive=_recent(workers),
            up={"mongodb": workers.error is None, "redis": redis.error is None},
        )

    def _read_gauges(self) -> Gauges:
        now, listing, queues = self._clock.now(), self._stores.listing, self._queues()
        oldest = {queue: listing.oldest_due(queue, now) for queue in queues}
        return Gauges(
            depth={queue: listing.depth(queue, now) for queue in queues},
            scheduled={queue: listing.scheduled(queue, now) for queue in queues},
            oldest_seconds={
                queue: max(0.0, (now - since).total_seconds()) if since else 0.0
                for queue, since in oldest.items()
            },
            processing=listing.processing(),
            sweep_age_seconds=self._stores.sweep.age_seconds(),
        )


def _recent(known: Known[Any]) -> Any:
    return known.value if known.age_seconds < _STALE_SECONDS else None


def _last(known: Known[Any]) -> Any:
    """Counting may take longer than a scrape waits; then the last count is the best there is."""
    slow = known.error is not None and known.error.startswith("no answer")
    return known.value if known.error is None or slow else None
