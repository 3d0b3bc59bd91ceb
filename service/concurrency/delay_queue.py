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


class DelayQueue(Generic[Item]):
    """Gives items to `act`, those due together as one list, on a thread of its own.

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

    def add(self, item: Item, seconds: float) -> bool:
        """Whether the item was taken."""
        with self._changed:
            if seconds > self._longest_seconds or len(self._heap) >= self._most or self._stopped:
                return False
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._number), item))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="delay queue", daemon=True)
                self._thread.start()
        return True

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
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                due = []
                while self._heap and self._heap[0][0] <= now:
                    due.append(heapq.heappop(self._heap)[2])
                if due:
                    return due
                self._changed.wait(self._heap[0][0] - now if self._heap else None)
        return None
