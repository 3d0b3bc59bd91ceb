"""Whether Redis can be used: where it can't, jobs come straight from MongoDB."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import redis

from service.concurrency.complaints import Complaints
from service.queue.broker import PulseBroker

_log = logging.getLogger(__name__)


class RedisMonitor:
    """Sets and clears `redis_away`.

    `wake()` breaks off the waiting of whoever claims; `on_return()` is called when Redis is back,
    which may have lost all that was in it.
    """

    def __init__(
        self,
        broker: PulseBroker,
        redis_away: threading.Event,
        *,
        wake: Callable[[], None],
        on_return: Callable[[], None],
    ) -> None:
        self._broker, self._redis_away = broker, redis_away
        self._wake, self._on_return = wake, on_return
        self._complaints = Complaints()

    def look(self) -> None:
        try:
            self._broker.probe()
        except redis.RedisError as error:
            self._is_away(error)
        else:
            self._is_there()

    def _is_away(self, error: redis.RedisError) -> None:
        if self._complaints.is_news(error):
            _log.warning("Redis is away, jobs come straight from MongoDB: %s", error)
        self._redis_away.set()
        self._wake()

    def _is_there(self) -> None:
        if self._redis_away.is_set():
            _log.info("Redis is back")
            self._on_return()
        self._redis_away.clear()
        self._complaints.settle()
