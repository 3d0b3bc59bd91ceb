"""What a web process is made of beside its HTTP side, and how it starts and stops."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

from service.catalog import Catalog
from service.clock import ServerClock
from service.concurrency.circuit_breaker import CircuitBreaker
from service.concurrency.cpu_lane import CpuLane
from service.errors import StoreUnavailable
from service.metrics.http_times import HttpTimes
from service.metrics.totals import Totals
from service.queue.broker import PulseBroker
from service.runtime import preflight
from service.settings import Settings, without_password
from service.store import Stores
from service.web.accept import Acceptor
from service.web.backlog import Backlog
from service.web.blocking_pool import BlockingPool
from service.web.changes import Changes
from service.web.follow_up import FollowUp
from service.web.health import Health
from service.web.long_poll import LongPoll
from service.web.lookup import Lookup

_log = logging.getLogger(__name__)
_PROBE_SECONDS = 0.8
_SLOW_SHARE = 0.4
"""After this share of the longest wait for MongoDB it is asked whether it is there at all, and has
as long again to say so: so it is known to hang before the first one who waits is told."""
LISTING_SECONDS = 3.0
_BULK_SECONDS = 20.0
"""From the question on; with its last chunk a change by filter is done within 30 s."""
_PATIENCE_SECONDS = 10.0
_START_SECONDS = 3.0
_CLOCK_SECONDS = 5.0


class WebProcess:
    """Connects to nothing and starts no thread before `start` or the first request."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        broker: PulseBroker,
        catalog: Catalog,
        clock: ServerClock,
    ) -> None:
        self.settings, self.stores, self.catalog, self.clock = settings, stores, catalog, clock
        self._broker = broker
        self._prepared = False
        # A little more than the driver's own: its word is better than none.
        timeout_seconds = settings.mongodb_timeout_ms / 1000 + 0.5
        slow_seconds = _SLOW_SHARE * settings.mongodb_timeout_ms / 1000
        self.breaker = CircuitBreaker(
            "MongoDB", self._prepare, check=lambda: stores.check_writable(slow_seconds)
        )
        self.follow_up = FollowUp(broker, stores.counters)
        self.acceptor = Acceptor(
            stores.jobs,
            self.follow_up,
            clock,
            self.breaker,
            timeout_seconds=timeout_seconds,
            slow_seconds=slow_seconds,
        )
        self.lookup = Lookup(
            stores.jobs, self.breaker, timeout_seconds=timeout_seconds, slow_seconds=slow_seconds
        )
        # Each kind waits for its own only: slow ones must not hold up the others.
        self.single_changes = self._offload("changes", 4, settings.mongodb_timeout_ms / 1000, 200)
        self.listings = self._offload("listings", 4, LISTING_SECONDS, 200)
        self.bulk_changes = self._offload("changes by filter", 4, 1.5 * _BULK_SECONDS, 20)
        self.aside = CpuLane()
        self.waiting = LongPoll(broker.client, stores.jobs.requests.finals, settings.max_waiters)
        self.changes = Changes(stores, self.follow_up, clock, self.waiting.tell)
        self.backlog = Backlog(self._count_waiting, settings.max_backlog_jobs)
        self.http_times = HttpTimes(stores.counters)
        self.totals = Totals(stores, lambda: catalog.queues, clock, broker.probe)
        self.health = Health(broker.probe, self._read_workers)
        self._clock_reader = _ClockReader(stores, clock)

    def _offload(self, name: str, threads: int, seconds: float, most_waiting: int) -> BlockingPool:
        return BlockingPool(
            self.breaker,
            name=name,
            seconds=seconds,
            threads=threads,
            most_waiting=most_waiting,
            patience_seconds=_PATIENCE_SECONDS,
        )

    def bulk_until(self) -> float:
        """Until when (monotonic) a change by filter that is asked for now may go on."""
        return time.monotonic() + _BULK_SECONDS

    def start(self) -> None:
        """Creates the indexes; without MongoDB it says so, and does it when MongoDB is there."""
        if not self.breaker.begin(_START_SECONDS):
            uri = without_password(self.settings.mongodb_uri)
            _log.warning("started without MongoDB at %s; events are refused until it is there", uri)
        self._clock_reader.start()

    def leave(self) -> None:
        """The end is near: who waits for an event is answered now."""
        self.waiting.stop()

    def stop(self) -> None:
        """Finishes what was taken: commits, then hints and counts."""
        self.acceptor.stop()
        self.lookup.stop()
        for offload in (self.single_changes, self.listings, self.bulk_changes):
            offload.stop()
        self.follow_up.stop()
        self.http_times.stop()
        self.waiting.stop()
        self.aside.stop()
        self.breaker.stop()
        self._clock_reader.stop()

    def _prepare(self) -> None:
        """What must be so before events are taken. Raises `StoreUnavailable`."""
        self.stores.check_writable(_PROBE_SECONDS)
        if not self._prepared:
            self.stores.read_clock(self.clock)
            self.stores.prepare()
            self._prepared = True
            _log.info("web is ready")
            preflight.warn_soon(self.stores.audit, self._broker.client, self.clock)

    def _read_workers(self) -> list[dict[str, object]]:
        self.stores.check_writable(_PROBE_SECONDS)
        return self.stores.workers.alive()

    def _count_waiting(self) -> int:
        return self.stores.listing.count_pending(self.settings.max_backlog_jobs + 1)


class _ClockReader(threading.Thread):
    """Reads the server's clock every few seconds: this process has no heartbeat that would."""

    def __init__(self, stores: Stores, clock: ServerClock) -> None:
        super().__init__(name="clock", daemon=True)
        self._stores, self._clock = stores, clock
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(_CLOCK_SECONDS):
            with suppress(StoreUnavailable):  # the monotonic clock carries the last reading on
                self._stores.read_clock(self._clock)

    def stop(self) -> None:
        self._stopped.set()
