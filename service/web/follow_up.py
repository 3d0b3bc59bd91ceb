"""What follows from an answer, behind its back: hints to Redis, counts to MongoDB.

Nothing here is awaited by a request. A hint that gets lost is sent by the worker's sweep, which
finds jobs that are due and have no message; counts that get lost with a killed process are the ones
of its last moment.
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
from service.errors import StoreUnavailable
from service.job import Hint
from service.queue.broker import PulseBroker
from service.store import Counters, Deltas

_log = logging.getLogger(__name__)
_MOST_TOGETHER = 500
_MOST_WAITING = 20_000
_PAUSE_SECONDS = 0.5
_COUNT_AFTER_SECONDS = 0.02
"""Counts are gathered for so long. Written at once, each would meet the claim of the very event
that it counts: MongoDB's journal flusher passes over a write that another one, which nobody waits
for, overlaps, and that claim would take as long as it is until something else is written."""


class FollowUp:
    """One thread, which takes all that waits together. While Redis fails, hints are dropped at
    once."""

    def __init__(
        self, broker: PulseBroker, counters: Counters, *, most_waiting: int = _MOST_WAITING
    ) -> None:
        self._broker, self._counters, self._most_waiting = broker, counters, most_waiting
        self._queue: SimpleQueue[Sequence[Hint] | Deltas | None] = SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pause_until = 0.0
        self._complaints = Complaints()

    def hint(self, hints: Sequence[Hint]) -> None:
        """Takes hints of jobs that are due now; returns at once. Thread-safe."""
        if time.monotonic() < self._pause_until or self._waiting >= self._most_waiting:
            return
        if hints:
            self._waiting += len(hints)  # two threads may lose a count: see _take
            self._put(hints)

    def hint_later(self, hint: Hint, seconds: float) -> None:
        """Like `hint`, in so many seconds; what lies too far ahead is left to the sweep."""
        self._broker.hint_later(hint, seconds)

    def count(self, deltas: Deltas) -> None:
        """Takes counts; returns at once. Thread-safe."""
        if deltas:
            self._put(deltas)

    def stop(self, timeout_seconds: float = 3.0) -> None:
        """Sends and counts what was taken, then ends the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout_seconds)

    def _put(self, some: Sequence[Hint] | Deltas) -> None:
        self._queue.put(some)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="follow up", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        goes_on = True
        gathered, count_at = Deltas(), 0.0
        while goes_on:
            hints, deltas, goes_on = self._take(count_at if gathered else None)
            if hints and time.monotonic() >= self._pause_until:
                self._send(hints)
            if deltas and not gathered:
                count_at = time.monotonic() + _COUNT_AFTER_SECONDS
            gathered.merge(deltas)
            if gathered and (time.monotonic() >= count_at or not goes_on):
                self._count(gathered)
                gathered = Deltas()

    def _take(self, until: float | None) -> tuple[list[Hint], Deltas, bool]:
        """All that waits, and whether more may come; waits no longer than until then (monotonic
        time)."""
        hints: list[Hint] = []
        deltas = Deltas()
        try:
            timeout = None if until is None else max(0.0, until - time.monotonic())
            some = self._queue.get(timeout=timeout)
        except Empty:
            return hints, deltas, True
        try:
            while some is not None:
                if isinstance(some, Deltas):
                    deltas.merge(some)
                else:
                    hints += some
                if len(hints) >= _MOST_TOGETHER:
                    break
                some = self._queue.get_nowait()
        except Empty:
            self._waiting = len(hints)  # nothing else is there: what was miscounted ends here
        self._waiting -= len(hints)
        return hints, deltas, some is not None

    def _send(self, hints: Sequence[Hint]) -> None:
        try:
            self._broker.enqueue_many(hints)
            self._complaints.settle()
        except redis.RedisError as error:
            self._pause_until = time.monotonic() + _PAUSE_SECONDS
            level = logging.WARNING if self._complaints.is_news(error) else logging.DEBUG
            _log.log(level, "Redis is unavailable, hints are left to the sweep: %s", error)
        except Exception:  # the thread must live: the next ones wait for it
            _log.exception("%d hints are left to the sweep", len(hints))
        crash_point("web.after_enqueue")

    def _count(self, deltas: Deltas) -> None:
        try:
            self._counters.add(deltas)
        except StoreUnavailable as error:
            _log.warning("some events were not counted: %s", error)
        except Exception:
            _log.exception("some events were not counted")
