"""Waits in Redis while this process has nothing to do, and is woken by the first hint."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

import redis

from service.job import Hint
from service.queue.lanes import Lanes
from service.worker.claiming.supply import Supply

_log = logging.getLogger(__name__)
_BLOCK_SECONDS = 5.0
_PAUSE_SECONDS = 0.25


class Listener(threading.Thread):
    """Takes one hint each time that it is turned on, and puts it into the `inbox`."""

    def __init__(
        self,
        supply: Supply,
        lanes: Lanes,
        client: redis.Redis,
        queues: Sequence[str],
        *,
        junk: Callable[[int], None],
    ) -> None:
        """`client`: a connection of its own, on which it blocks. `junk(count)` is told of what was
        no hint."""
        super().__init__(name="listener", daemon=True)
        self._supply, self._lanes, self._client, self._queues = supply, lanes, client, queues
        self._junk = junk
        self.inbox: deque[Hint] = deque()
        self._on = threading.Event()
        self._stopped = False

    def turn_on(self) -> None:
        if not self._on.is_set():
            self._on.set()

    def turn_off(self) -> None:
        """Where it blocks already, it may still take one hint."""
        self._on.clear()

    def stop(self) -> None:
        self._stopped = True
        self._on.set()

    def run(self) -> None:
        while not self._stopped:
            self._on.wait()
            if self._is_unwanted():
                self._on.clear()
            elif (hint := self._listen()) is not None:
                self._on.clear()
                self.inbox.append(hint)
                self._supply.wake.set()

    def _listen(self) -> Hint | None:
        try:
            woken = self._lanes.wait(self._client, self._queues, _BLOCK_SECONDS)
        except redis.RedisError as error:
            if not self._is_unwanted():
                _log.warning("Redis is away, jobs come straight from MongoDB: %s", error)
                self._supply.redis_away.set()
            return None
        if woken.junk:
            self._junk(woken.junk)
        return woken.hint

    def _is_unwanted(self) -> bool:
        """Also where its waiting was broken off on purpose, by closing its connection."""
        supply = self._supply
        return self._stopped or supply.draining.is_set() or supply.redis_away.is_set()
