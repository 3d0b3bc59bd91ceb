"""Concurrent requests, answered together: one call for all that came while the last was under way.

Never a timer: alone, a request is acted on at once; under load, the batches grow by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from service.errors import BacklogFull, StoreLate

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)
_Asked = tuple[Item, "asyncio.Future[Answer]", int]
_WATCH_SECONDS = 0.25


class Batcher(Generic[Item, Answer]):
    """`act(items)` answers each item, in order, with a value or an exception for that item alone.

    It is called on this object's own thread, which starts with the first request (and so after a
    fork). What `act` raises is the answer for all of them. `after(items, answers)` follows when the
    answers are on their way; `on_slow()` is called again and again while one has been waited for
    longer than `slow_seconds`.
    """

    def __init__(
        self,
        act: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        *,
        name: str,
        timeout_seconds: float,
        after: Callable[[Sequence[Item], Sequence[Answer | Exception]], None] | None = None,
        on_slow: Callable[[], None] | None = None,
        slow_seconds: float = float("inf"),
        most_together: int = 1_000,
        most_bytes: int = 8_388_608,
        most_waiting: int = 20_000,
    ) -> None:
        self._act, self._after, self._name = act, after, name
        self._timeout_seconds = timeout_seconds
        self._on_slow, self._slow_seconds = on_slow, slow_seconds
        self._most_together, self._most_bytes = most_together, most_bytes
        self._most_waiting = most_waiting
        self._thread: threading.Thread | None = None
        self._queue: SimpleQueue[_Asked[Item, Answer] | None] = SimpleQueue()
        self._watched: deque[tuple[float, asyncio.Future[Answer]]] = deque()
        self._watching = False
        self._stopped = False

    def ask(self, item: Item, size: int = 0) -> asyncio.Future[Answer]:
        """Its answer, in time or not at all: what takes longer fails with `StoreLate`.

        `size` in bytes: large ones are not all acted on together. Call it on an event loop. Raises
        `BacklogFull` where too many wait already.
        """
        if len(self._watched) >= self._most_waiting:
            self._forget_answered()
            if len(self._watched) >= self._most_waiting:
                raise BacklogFull("too many requests wait for MongoDB", 1)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._watched.append((loop.time() + self._timeout_seconds, future))
        self._queue.put((item, future, size))
        if not self._watching:
            self._start(loop)
        return future

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Finishes what was taken, then ends the thread."""
        self._stopped = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout_seconds)

    # on the event loop

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching = True
        loop.call_later(_WATCH_SECONDS, self._watch, loop)
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fails what waits too long; one timer for all."""
        self._forget_answered()
        if self._on_slow is not None and self._watched:
            waited = loop.time() - (self._watched[0][0] - self._timeout_seconds)
            if waited >= self._slow_seconds:
                self._on_slow()
        while self._watched and self._watched[0][0] < loop.time():
            future = self._watched.popleft()[1]
            if not future.done():
                future.set_exception(
                    StoreLate("no answer in time; nothing is known about the outcome")
                )
        self._watching = bool(self._watched) and not loop.is_closed()
        if self._watching:
            loop.call_later(_WATCH_SECONDS, self._watch, loop)

    def _forget_answered(self) -> None:
        while self._watched and self._watched[0][1].done():
            self._watched.popleft()

    # on the thread

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if not batch:
                continue
            items = [item for item, *_ in batch]
            answers: Sequence[Answer | Exception]
            try:
                answers = self._act(items)
            except Exception as error:
                answers = [error] * len(items)
            _deliver([future for _, future, _ in batch], answers)
            self._run_after(items, answers)

    def _run_after(self, items: Sequence[Item], answers: Sequence[Answer | Exception]) -> None:
        if self._after is not None:
            try:
                self._after(items, answers)
            except Exception:  # the thread must live: the next ones wait for it
                _log.exception("what follows from %s failed", self._name)

    def _take(self) -> list[_Asked[Item, Answer]] | None:
        """All that waits; what nobody waits for any more is left out."""
        one = self._queue.get()
        batch: list[_Asked[Item, Answer]] = []
        size = 0
        try:
            while one is not None:
                if not one[1].done():
                    batch.append(one)
                    size += one[2]
                if len(batch) >= self._most_together or size >= self._most_bytes:
                    return batch
                one = self._queue.get_nowait()
        except Empty:
            return batch
        if batch:
            self._queue.put(None)
            return batch
        return None


def _deliver(
    futures: Sequence[asyncio.Future[Answer]], answers: Sequence[Answer | Exception]
) -> None:
    """Wakes each event loop once for all that is its own."""
    by_loop = defaultdict(list)
    for pair in zip(futures, answers, strict=True):
        by_loop[pair[0].get_loop()].append(pair)
    for loop, pairs in by_loop.items():
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: Sequence[tuple[asyncio.Future[Answer], Answer | Exception]]) -> None:
    for future, answer in pairs:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
