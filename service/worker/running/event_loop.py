"""The event loop of asynchronous handlers: one thread a process, which jobs are handed over to."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dramatiq.middleware import TimeLimitExceeded

from service.worker.registry import Held
from service.worker.running.time_limits import Interruptible

_log = logging.getLogger(__name__)
_EXPIRY_TICK_SECONDS = 0.1
_NOTICED_LAG_SECONDS = 0.5
_BLOCKED_SECONDS = 2.0


class LoopThread(threading.Thread):
    """Many jobs are handed over with one wake-up."""

    def __init__(
        self,
        run_one: Callable[[Held], Any],
        expired: Callable[[], list[Held]],
        extend: Callable[[float], None],
    ) -> None:
        super().__init__(name="handlers", daemon=True)
        self._run_one, self._expired, self._extend = run_one, expired, extend
        self._submitted: deque[Held] = deque()
        self._woken = False
        self._watching = False
        self._tasks: dict[asyncio.Task[None], Held] = {}
        self.loop = _new_loop()
        self.last_tick = time.monotonic()
        self.limit = Interruptible({}, 0)
        """What runs on the loop may be interrupted, but for what the loop's own business is."""

    def run(self) -> None:
        self.limit.ident = threading.get_ident()
        self.limit.allow()
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def submit(self, held: Held) -> None:
        self._submitted.append(held)
        if not self._woken:
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
    def current(self) -> Held | None:
        """The job whose handler runs on the loop at this moment; while the loop is blocked, the one
        that blocks it. Thread-safe."""
        task = asyncio.current_task(self.loop)
        return None if task is None else self._tasks.get(task)

    def _start_all(self) -> None:
        self._woken = False
        while self._submitted:
            held = self._submitted.popleft()
            if held.settled:
                continue  # given back before it began
            held.task = task = self.loop.create_task(self._run_one(held))
            self._tasks[task] = held
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
        for held in self._expired():
            held.task.cancel()
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
