"""What a web process is made of beside its HTTP side, and how it starts and stops."""

from __future__ import annotations

import logging
import time

from service.catalog import Catalog
from service.clock import ServerClock
from service.concurrency.circuit_breaker import CircuitBreaker
from service.concurrency.cpu_lane import CpuLane
from service.metrics.http_times import HttpTimes
from service.metrics.totals import Totals
from service.queue.broker import PulseBroker
from service.settings import Settings, without_password
from service.store import Stores
from service.web.accept import Acceptor
from service.web.actions import Actions
from service.web.backlog import Backlog
from service.web.blocking_pool import BlockingPool
from service.web.clock_reader import ClockReader
from service.web.counter_writer import CounterWriter
from service.web.health import Health
from service.web.hint_publisher import HintPublisher
from service.web.long_poll import LongPoll
from service.web.lookup import Lookup
from service.web.page_reader import LONGEST_READ_SECONDS, PageReader
from service.web.preparation import Preparation

_log = logging.getLogger(__name__)
_PROBE_SECONDS = 0.8
_SLOW_SHARE = 0.4
"""After this share of the longest wait for MongoDB it is asked whether it is there at all, and has
as long again to say so. So a MongoDB that hangs is known before the first request gives up."""
_DRIVER_SECONDS = 0.5
"""How much longer than the driver a request waits: the driver's word is better than none."""
_BULK_SECONDS = 20.0
"""For all chunks but the last; with that one, a change by filter is done within 30 s."""
_PATIENCE_SECONDS = 10.0
_START_SECONDS = 3.0


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
        self._preparation = Preparation(stores, broker.client, clock)
        self.breaker = self._make_breaker()
        self.hints = HintPublisher(broker)
        self.counts = CounterWriter(stores.counters)
        self.acceptor = self._make_acceptor()
        self.lookup = Lookup(
            stores.jobs,
            self.breaker,
            timeout_seconds=self._timeout_seconds,
            slow_seconds=self._slow_seconds,
        )
        # Each kind waits for its own only: slow ones must not hold up the others.
        self.single_changes = self._pool("changes", 4, settings.mongodb_timeout_ms / 1000, 200)
        self.bulk_changes = self._pool("changes by filter", 4, 1.5 * _BULK_SECONDS, 20)
        listings = self._pool("listings", 4, LONGEST_READ_SECONDS, 200)
        self.pages = PageReader(listings, stores.listing)
        self.schedule_reads = self._pool("reads of schedules", 2, LONGEST_READ_SECONDS, 200)
        self.cpu_lane = CpuLane()
        self.long_poll = LongPoll(broker.client, stores.jobs.requests.finals, settings.max_waiters)
        self.actions = Actions(stores, self.hints, self.counts, clock, self.long_poll.tell)
        self.http_times = HttpTimes(stores.counters)
        self.totals = Totals(stores, lambda: catalog.types_by_queue, clock, broker.probe)
        self.health = Health(broker.probe, self._read_workers)
        self._clock_reader = ClockReader(stores, clock)

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
        """The end is near: requests that wait for an event are answered now."""
        self.long_poll.stop()

    def stop(self) -> None:
        """Finishes what was taken: commits first, then the hints and counts that follow."""
        self.acceptor.stop()
        self.lookup.stop()
        for pool in (self.single_changes, self.pages, self.schedule_reads, self.bulk_changes):
            pool.stop()
        self.hints.stop()
        self.counts.stop()
        self.http_times.stop()
        self.long_poll.stop()
        self.cpu_lane.stop()
        self.breaker.stop()
        self._clock_reader.stop()

    # its parts

    @property
    def _timeout_seconds(self) -> float:
        """How long a request waits for MongoDB."""
        return self.settings.mongodb_timeout_ms / 1000 + _DRIVER_SECONDS

    @property
    def _slow_seconds(self) -> float:
        """After how long MongoDB is asked whether it is there."""
        return _SLOW_SHARE * self.settings.mongodb_timeout_ms / 1000

    def _make_breaker(self) -> CircuitBreaker:
        return CircuitBreaker(
            "MongoDB",
            lambda: self._preparation.run(_PROBE_SECONDS),
            check=lambda: self.stores.check_writable(self._slow_seconds),
        )

    def _make_acceptor(self) -> Acceptor:
        most = self.settings.max_backlog_jobs
        return Acceptor(
            self.stores.jobs,
            Backlog(lambda: self.stores.listing.count_pending(most + 1), most),
            self.hints,
            self.counts,
            clock=self.clock,
            breaker=self.breaker,
            timeout_seconds=self._timeout_seconds,
            slow_seconds=self._slow_seconds,
        )

    def _pool(self, name: str, threads: int, seconds: float, most_waiting: int) -> BlockingPool:
        return BlockingPool(
            self.breaker,
            name=name,
            seconds=seconds,
            threads=threads,
            most_waiting=most_waiting,
            patience_seconds=_PATIENCE_SECONDS,
        )

    def _read_workers(self) -> list[dict[str, object]]:
        self.stores.check_writable(_PROBE_SECONDS)
        return self.stores.workers.alive()
