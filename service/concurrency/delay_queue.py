"""Things to do in a moment, in this process: what is lost with it, the sweep does a bit later."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
_log = logging.getLogger(__name__)
_MOMENT_SECONDS = 0.01


class DelayQueue(Generic[Item]):
    """Gives items to `act`, those due together as one list, on a thread of its own: at most a
    hundred times a second.

    Holds at most `most` items and none for longer than `longest_seconds`: what is refused is left
    to the sweep.
    """

    def __init__(
        self,
        act: Callable[[Sequence[Item]], object],
        *,
        most: int = 10_000,
        longest_seconds: float = 60.0,
    ) -> None:
        self._act, self._most, self._longest_seconds = act, most, longest_seconds
        self._heap: list[tuple[float, int, Item]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._next_act_at = 0.0

    def add(self, item: Item, seconds: float) -> bool:
        """Whether the item was taken."""
        return self.add_many([(item, seconds)]) == 1

    def add_many(self, items: Sequence[tuple[Item, float]]) -> int:
        """How many of the items, each with its seconds, were taken."""
        taken, now = 0, time.monotonic()
        with self._changed:
            for item, seconds in items:
                if self._stopped or seconds > self._longest_seconds or self._is_full:
                    continue
                heapq.heappush(self._heap, (now + seconds, next(self._number), item))
                taken += 1
            if taken:
                self._wake()
        return taken

    @property
    def _is_full(self) -> bool:
        return len(self._heap) >= self._most

    def _wake(self) -> None:
        self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="delay queue", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._heap.clear()
            self._changed.notify()

    def _run(self) -> None:
        while (items := self._next()) is not None:
            try:
                self._act(items)
            except Exception:
                _log.exception("what was due now is left to the sweep")

    def _next(self) -> list[Item] | None:
        """All that is due, as soon as there is something; the next ones not before a moment has
        passed, so that of many that come due one by one few calls are made."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                due_at = max(self._heap[0][0], self._next_act_at) if self._heap else None
                if due_at is not None and due_at <= now:
                    self._next_act_at = now + _MOMENT_SECONDS
                    return self._pop_due(now)
                self._changed.wait(None if due_at is None else due_at - now)
        return None

    def _pop_due(self, now: float) -> list[Item]:
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due
