"""What needs doing now and then, by the leader of the sweep."""

from __future__ import annotations

import logging

from service.catalog import Catalog
from service.clock import ServerClock
from service.queue.broker import PulseBroker
from service.store import Stores
from service.worker.maintenance.adopt import clear_orphans

_log = logging.getLogger(__name__)
_FORGET_WORKERS_SECONDS = 3600.0


class Janitor:
    """Clears away what the dead left in Redis and in the list of workers, and what only a former
    version needs."""

    def __init__(
        self, stores: Stores, broker: PulseBroker, catalog: Catalog, clock: ServerClock
    ) -> None:
        self._stores, self._broker, self._catalog, self._clock = stores, broker, catalog, clock
        self._has_dropped_indexes = False

    def tidy(self) -> None:
        """Raises `StoreUnavailable` and `redis.RedisError`."""
        self._broker.lists.return_from_the_dead(self._clock.now_ms())
        for queue in self._catalog.queues:
            clear_orphans(self._stores.jobs, self._broker, queue)
        self._stores.workers.forget_older_than(_FORGET_WORKERS_SECONDS)
        self._drop_former_indexes()

    def _drop_former_indexes(self) -> None:
        """Once the last worker of a former version is gone, and only once: one that is started
        later, by a rollback, makes its index before anybody can know of it."""
        if not self._has_dropped_indexes and self._stores.workers.all_know_lanes():
            for name in self._stores.drop_former_indexes():
                _log.info("an index of a former version is dropped", extra={"index": name})
            self._has_dropped_indexes = True
