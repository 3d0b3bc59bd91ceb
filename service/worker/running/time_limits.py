"""Interrupts threads whose run is beyond its time limit, nowhere but where they allow it.

An exception that is raised in another thread strikes between any two of its bytecodes. Where the
thread had just taken a lock, that lock would stay held for ever. So there is a permit, which only
one can take: the thread takes it before it does what must not be cut off, and an interrupter takes
it before it strikes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from dramatiq.middleware import TimeLimit, TimeLimitExceeded
from dramatiq.threading import raise_thread_exception

_log = logging.getLogger(__name__)
_TICK_SECONDS = 0.25
_MOMENT_SECONDS = 0.001


class Interruptible:
    """One thread's run: `TimeLimitExceeded` comes only between `allow` and `refuse`, which that
    thread calls."""

    __slots__ = ("_allows", "_has_come", "_permits", "deadline", "ident")

    def __init__(
        self, permits: dict[Interruptible, None], ident: int, deadline: float = float("inf")
    ) -> None:
        """`permits`: of all that may be interrupted now; `deadline`: monotonic time."""
        self._permits, self.ident, self.deadline = permits, ident, deadline
        self._allows = self._has_come = False

    def allow(self) -> None:
        self._has_come, self._allows = False, True
        self._permits[self] = None

    def refuse(self) -> None:
        """When this returns, nothing comes any more. Raises `TimeLimitExceeded` where that was on
        its way."""
        if self._allows and not self._taken():
            while not self._has_come:
                time.sleep(_MOMENT_SECONDS)
            time.sleep(0)  # a call: at the latest with its return it is raised
        self._allows = False

    def shield(self, act: Callable[[], object]) -> None:
        """Calls it where nothing comes; a handler may do so from a thread of its own too."""
        if threading.get_ident() != self.ident:
            act()
            return
        self.refuse()
        try:
            act()
        finally:
            self.allow()

    def interrupt(self) -> bool:
        """From another thread; whether it was allowed."""
        if not self._taken():
            return False
        try:
            raise_thread_exception(  # type: ignore[no-untyped-call]
                self.ident, TimeLimitExceeded
            )
        finally:
            self._has_come = True
        return True

    def _taken(self) -> bool:
        return self._permits.pop(self, self) is None


class HandlerTimeLimit(TimeLimit):
    """Dramatiq's `TimeLimit`, whose exception comes only where a run allows it.

    Dramatiq's own may strike right after a lock was taken, or in the middle of another middleware's
    hook (Dramatiq issue 445).
    """

    def __init__(self, limits: TimeLimits) -> None:
        super().__init__(time_limit=float("inf"))
        self.manager = limits  # type: ignore[assignment]  # what its hooks talk to
        self.limits = limits


class TimeLimits:
    """Interrupts threads beyond their deadline; looks a few times a second, on its own thread.

    `start`, `add_timeout` and `remove_timeout` are what `TimeLimit` calls, with a thread's id.
    """

    def __init__(self) -> None:
        self._permits: dict[Interruptible, None] = {}
        self._deadlines: dict[int, float] = {}

    def start(self) -> None:
        threading.Thread(target=self._run, name="time limits", daemon=True).start()

    def add_timeout(self, thread_id: int, limit_ms: float) -> None:
        self._deadlines[thread_id] = time.monotonic() + limit_ms / 1000

    def remove_timeout(self, thread_id: int) -> None:
        self._deadlines.pop(thread_id, None)

    def here(self, deadline: float | None = None) -> Interruptible:
        """For a run on the calling thread, until then (monotonic time), by default as long as the
        message that it processes may take."""
        thread_id = threading.get_ident()
        if deadline is None:
            deadline = self._deadlines.get(thread_id, float("inf"))
        return Interruptible(self._permits, thread_id, deadline)

    def look(self, now: float) -> None:
        """Interrupts whose deadline is not after `now` (monotonic time)."""
        for run in self._permits.copy():
            if run.deadline <= now and run.interrupt():
                _log.warning("a run beyond its time limit was interrupted")

    def _run(self) -> None:
        while True:
            time.sleep(_TICK_SECONDS)
            try:
                self.look(time.monotonic())
            except Exception:  # the thread must live: nobody else interrupts
                _log.exception("time limits could not be looked at")
