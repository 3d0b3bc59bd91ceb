"""Sends the hints of accepted events to Redis, behind the answers' back.

Nothing here is awaited by a request and nothing is kept for long: a hint that gets lost is sent by
the worker's sweep, which finds jobs that are due and have no message.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue

import redis

from service.broker import PulseBroker
from service.crash import crash_point
from service.job import Hint

_log = logging.getLogger(__name__)
_MOST_TOGETHER = 500
_MOST_WAITING = 20_000
_PAUSE_SECONDS = 0.5


class Hints:
    """A bounded queue and one thread; while Redis fails, hints are dropped at once."""

    def __init__(self, broker: PulseBroker, *, most_waiting: int = _MOST_WAITING) -> None:
        self._broker, self._most_waiting = broker, most_waiting
        self._queue: SimpleQueue[Sequence[Hint] | None] = SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pause_until = 0.0

    def send(self, hints: Sequence[Hint]) -> None:
        """Takes hints of jobs that are due now; returns at once. Thread-safe."""
        if time.monotonic() < self._pause_until or self._waiting >= self._most_waiting:
            return
        if hints:
            self._waiting += len(hints)  # two threads may lose a count: see _take
            self._queue.put(hints)
            if self._thread is None:
                self._start()

    def send_later(self, hint: Hint, seconds: float) -> None:
        """Like `send`, in so many seconds; what lies too far ahead is left to the sweep."""
        self._broker.hint_later(hint, seconds)

    def stop(self, timeout_seconds: float = 3.0) -> None:
        """Sends what was taken, then ends the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout_seconds)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while batch := self._take():
            if time.monotonic() < self._pause_until:
                continue
            try:
                self._broker.enqueue_many(batch)
            except redis.RedisError as error:
                self._pause_until = time.monotonic() + _PAUSE_SECONDS
                _log.warning("Redis is unavailable, hints are left to the sweep: %s", error)
            except Exception:
                _log.exception("%d hints are left to the sweep", len(batch))
            crash_point("web.after_enqueue")

    def _take(self) -> list[Hint]:
        """All that waits; nothing at the end."""
        some = self._queue.get()
        batch: list[Hint] = []
        try:
            while some is not None:
                batch += some
                if len(batch) >= _MOST_TOGETHER:
                    break
                some = self._queue.get_nowait()
            else:
                if batch:
                    self._queue.put(None)
        except Empty:
            self._waiting = len(batch)  # nothing else is there: what was miscounted ends here
        self._waiting -= len(batch)
        return batch
