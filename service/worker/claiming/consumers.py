"""The consumers that Dramatiq asks for, one a queue."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import dramatiq
import redis

from service.catalog import Catalog
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.settings import Settings
from service.store import Counters
from service.worker.claiming.message_consumer import MessageConsumer
from service.worker.claiming.passive_consumer import PassiveConsumer

_log = logging.getLogger(__name__)
_WAIT_SECONDS = 5.0


class Consumers:
    """Jobs come another way: only other actors' messages need a consumer that does anything."""

    def __init__(
        self, settings: Settings, catalog: Catalog, counters: Counters, draining: threading.Event
    ) -> None:
        self._settings, self._catalog, self._counters = settings, catalog, counters
        self._draining = draining
        self._clients: list[redis.Redis] = []

    def make(self, broker: PulseBroker, queue: str, *_: Any) -> dramatiq.Consumer:
        """What else Dramatiq says (how much to prefetch, how long to wait) means nothing here."""
        actors = [a.actor_name for a in broker.actors.values() if a.queue_name == queue]
        if all(self._catalog.get(name) for name in actors):
            return PassiveConsumer(self._draining)
        client = redis_client.connect_to_block(self._settings)
        self._clients.append(client)
        return MessageConsumer(
            broker, queue, self._catalog, self._counters, client=client, draining=self._draining
        )

    def interrupt(self) -> None:
        """Ends all waiting in Redis. Any thread may call it."""
        for client in self._clients:
            redis_client.interrupt(client)


def wait_for_consumers(worker: dramatiq.Worker) -> None:
    """Dramatiq acks what its threads have run to their queue's consumer, which the consumer's own
    thread makes in its first moment."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not all(thread.consumer for thread in worker.consumers.values()):
        if time.monotonic() > deadline:
            _log.warning("a queue has no consumer yet")
            return
        time.sleep(0.005)
