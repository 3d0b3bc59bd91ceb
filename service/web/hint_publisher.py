"""Sends hints to Redis, behind the answer: no request waits for it.

A hint that gets lost is sent by the worker's sweep, which finds due jobs without a message.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue

import redis

from service.concurrency.complaints import Complaints
from service.crash import crash_point
from service.job import Hint
from service.queue.broker import PulseBroker

_log = logging.getLogger(__name__)
_MOST_TOGETHER = 500
_MOST_WAITING = 20_000
_PAUSE_SECONDS = 0.5


class HintPublisher:
    """One thread sends all hints that wait together. While Redis fails, hints are dropped at
    once; it is tried again every half second."""

    def __init__(self, broker: PulseBroker, *, most_waiting: int = _MOST_WAITING) -> None:
        self._broker, self._most_waiting = broker, most_waiting
        self._queue: SimpleQueue[Sequence[Hint] | None] = SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pause_until = 0.0
        self._complaints = Complaints()

    def publish(self, hints: Sequence[Hint]) -> None:
        """Takes hints of jobs that are due now; returns at once. Thread-safe."""
        if self._is_paused or self._waiting >= self._most_waiting or not hints:
            return
        self._waiting += len(hints)  # two threads may lose a count: see _take
        self._queue.put(hints)
        if self._thread is None:
            self._start()

    def publish_later(self, hint: Hint, seconds: float) -> None:
        """Like `publish`, in so many seconds; what lies too far ahead is left to the sweep."""
        self._broker.hint_later(hint, seconds)

    def stop(self, timeout_seconds: float = 3.0) -> None:
        """Sends what was taken, then ends the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout_seconds)

    @property
    def _is_paused(self) -> bool:
        return time.monotonic() < self._pause_until

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
                self._thread.start()

    # on the thread

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            hints, goes_on = self._take()
            if hints and not self._is_paused:
                self._send(hints)

    def _take(self) -> tuple[list[Hint], bool]:
        """All that waits, and whether more may come."""
        hints: list[Hint] = []
        some = self._queue.get()
        try:
            while some is not None:
                hints += some
                if len(hints) >= _MOST_TOGETHER:
                    break
                some = self._queue.get_nowait()
        except Empty:
            self._waiting = len(hints)  # the queue is empty: a lost count is put right here
        self._waiting -= len(hints)
        return hints, some is not None

    def _send(self, hints: Sequence[Hint]) -> None:
        try:
            self._broker.enqueue_many(hints)
            self._complaints.settle()
        except redis.RedisError as error:
            self._pause_until = time.monotonic() + _PAUSE_SECONDS
            level = self._complaints.level(error)
            _log.log(level, "Redis is unavailable, hints are left to the sweep: %s", error)
        except Exception:  # the thread must live: the next ones wait for it
            _log.exception("%d hints are left to the sweep", len(hints))
        crash_point("web.after_enqueue")
