"""What needs doing now and then, by the leader of the sweep."""

from __future__ import annotations

from service.catalog import Catalog
from service.clock import ServerClock
from service.queue.broker import PulseBroker
from service.store import Stores
from service.worker.maintenance import sweep

_FORGET_WORKERS_SECONDS = 3600.0


class Janitor:
    """Clears away what the dead left in Redis, and in the list of workers."""

    def __init__(
        self, stores: Stores, broker: PulseBroker, catalog: Catalog, clock: ServerClock
    ) -> None:
        self._stores, self._broker, self._catalog, self._clock = stores, broker, catalog, clock

    def tidy(self) -> None:
        """Raises `StoreUnavailable` and `redis.RedisError`."""
        self._broker.give_back_of_the_dead(self._clock.now_ms())
        for queue in self._catalog.queues:
            sweep.clear_orphans(self._stores.jobs, self._broker, queue)
        self._stores.workers.forget_older_than(_FORGET_WORKERS_SECONDS)
