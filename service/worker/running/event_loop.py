"""The event loop of asynchronous handlers: one thread a process, which jobs are handed over to."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from dramatiq.middleware import TimeLimitExceeded

from service.worker.holding.job import InFlightJob
from service.worker.running.time_limits import Interruptible

_log = logging.getLogger(__name__)
_EXPIRY_TICK_SECONDS = 0.1
_NOTICED_LAG_SECONDS = 0.5
_BLOCKED_SECONDS = 2.0


class LoopThread(threading.Thread):
    """Many jobs are handed over with one wake-up."""

    def __init__(
        self,
        begin: Callable[[list[InFlightJob]], list[InFlightJob]],
        run_one: Callable[[InFlightJob], Any],
        expired: Callable[[], list[InFlightJob]],
        extend: Callable[[float], None],
    ) -> None:
        """`begin(jobs)`: those of them that may run now."""
        super().__init__(name="handlers", daemon=True)
        self._begin, self._run_one = begin, run_one
        self._expired, self._extend = expired, extend
        self._submitted: deque[InFlightJob] = deque()
        self._woken = False
        self._watching = False
        self._tasks: dict[asyncio.Task[None], InFlightJob] = {}
        self.loop = _new_loop()
        self.last_tick = time.monotonic()
        self.limit = Interruptible({}, 0)
        """What runs on the loop may be interrupted, but for what the loop's own business is."""

    def run(self) -> None:
        self.limit.ident = threading.get_ident()
        self.limit.allow()
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def submit(self, jobs: Iterable[InFlightJob]) -> None:
        self._submitted.extend(jobs)
        if self._submitted and not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._start_all)

    def cancel(self, task: asyncio.Task[None]) -> None:
        self.loop.call_soon_threadsafe(task.cancel)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    @property
    def is_blocked(self) -> bool:
        return self._watching and time.monotonic() - self.last_tick > _BLOCKED_SECONDS

    @property
    def current(self) -> InFlightJob | None:
        """The job whose handler runs on the loop at this moment; while the loop is blocked, the one
        that blocks it. Thread-safe."""
        task = asyncio.current_task(self.loop)
        return None if task is None else self._tasks.get(task)

    def _start_all(self) -> None:
        self._woken = False
        submitted = [self._submitted.popleft() for _ in range(len(self._submitted))]
        for job in self._begin(submitted):
            job.task = task = self.loop.create_task(self._run_one(job))
            self._tasks[task] = job
            task.add_done_callback(self._tasks.pop)
        if not self._watching:
            self._watching = True
            self.last_tick = time.monotonic()
            self.loop.call_later(_EXPIRY_TICK_SECONDS, self._expire)

    def _expire(self) -> None:
        """Cancels what is beyond its time limit; sleeps while nothing runs.

        A handler that blocked the loop took that time from all others: they get it back.
        """
        try:
            self.limit.refuse()
        except TimeLimitExceeded:
            _log.info("what blocked the event loop has ended by itself")
        now = time.monotonic()
        lag, self.last_tick = now - self.last_tick - _EXPIRY_TICK_SECONDS, now
        if lag > _NOTICED_LAG_SECONDS:
            _log.warning("the event loop was blocked for %.1f s", lag)
            self._extend(lag)
        for job in self._expired():
            job.task.cancel()
        self._watching = bool(self._tasks)
        if self._watching:
            self.loop.call_later(_EXPIRY_TICK_SECONDS, self._expire)
        self.limit.allow()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
