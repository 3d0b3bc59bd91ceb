"""The threads that supply this process with jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import redis

from service.queue import redis_client
from service.queue.lanes import Lanes
from service.worker.claiming.claimer import Claimer, HandOver
from service.worker.claiming.inbox import count_junk
from service.worker.claiming.listener import Listener
from service.worker.claiming.mongo_source import MongoSource
from service.worker.claiming.pourer import Pourer
from service.worker.claiming.redis_source import RedisSource
from service.worker.claiming.supplier import Supplier
from service.worker.claiming.supply import Supply


class SupplyThreads:
    """`client` is for blocking, by nobody else; `interrupt()` may come from any thread."""

    def __init__(
        self,
        supply: Supply,
        lanes: Lanes,
        client: redis.Redis,
        *,
        hand_over: HandOver,
        look_for_lost_calls: Callable[[], None],
    ) -> None:
        self._supply, self._client = supply, client
        self.interrupt = partial(redis_client.interrupt, client)
        types = {t.name for t in supply.catalog if t.queue in supply.queues}
        self._pourer = Pourer(supply.store, lanes, supply.clock, supply.wake.set)
        junk = partial(count_junk, supply.counters)
        self._listener = Listener(supply, lanes, client, supply.queues, junk=junk)
        self.supplier = Supplier(
            supply,
            Claimer(supply, hand_over),
            self._listener,
            in_redis=RedisSource(
                lanes,
                supply.queues,
                types,
                pour=self._pourer.pour,
                junk=junk,
            ),
            in_mongodb=MongoSource(supply),
            look_for_lost_calls=look_for_lost_calls,
        )

    def __iter__(self) -> Iterator[threading.Thread]:
        yield from (self.supplier, self._listener, self._pourer)

    def start(self) -> None:
        for thread in self:
            thread.start()

    def stop(self) -> None:
        """Each ends after what it is at."""
        self.supplier.stop()
        self._pourer.stop()
        self._listener.stop()
        self.interrupt()
