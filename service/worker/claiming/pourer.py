"""Pours lanes on a thread of its own, so that claims go on meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import redis

from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.queue.lanes import Lane, Lanes
from service.store import JobStore
from service.worker.claiming.pour import pour

_log = logging.getLogger(__name__)


class Pourer(threading.Thread):
    """Takes lanes whose lock this process holds, in their order."""

    def __init__(
        self,
        store: JobStore,
        lanes: Lanes,
        clock: ServerClock,
        poured: Callable[[], None] = lambda: None,
    ) -> None:
        """`poured()` is called when a lane has been filled."""
        super().__init__(name="pourer", daemon=True)
        self._store, self._lanes, self._clock = store, lanes, clock
        self._poured = poured
        self._asked: SimpleQueue[Lane | None] = SimpleQueue()

    def pour(self, lanes: Sequence[Lane]) -> None:
        """Returns at once."""
        for lane in lanes:
            self._asked.put(lane)

    def stop(self) -> None:
        """Ends the thread after what it is at; what else was asked for, others pour once the locks
        have run out."""
        self._asked.put(None)

    def run(self) -> None:
        while (lane := self._asked.get()) is not None:
            try:
                pour(self._store, self._lanes, lane, self._clock.now())
                self._poured()
            except (StoreUnavailable, redis.RedisError) as error:
                _log.warning("a lane isn't filled: %s", error, extra={"lane": lane.name})
            except Exception:  # the thread must live: the next ones wait for it
                _log.exception("a lane isn't filled", extra={"lane": lane.name})
