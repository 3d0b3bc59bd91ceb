"""Runs beyond their time limit: whom to interrupt, whom to blame, and how their attempts end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from service.clock import ServerClock
from service.job import AttemptResult
from service.worker.holding.in_flight import InFlight
from service.worker.holding.job import InFlightJob
from service.worker.running.event_loop import LoopThread
from service.worker.running.results import stuck


class LoopDeadlines:
    """Time limits of what runs on the event loop."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight

    def expired(self) -> list[InFlightJob]:
        """The runs that are beyond theirs."""
        now = time.monotonic()
        return [job for job in self._on_loop() if job.deadline <= now]

    def extend(self, seconds: float) -> None:
        """Gives all of them so much more time."""
        for job in self._on_loop():
            job.deadline += seconds

    def _on_loop(self) -> list[InFlightJob]:
        return [job for job in self._in_flight.running() if job.task is not None]


class StuckRuns:
    """For the watchdog: `put(job, attempt_result)` ends an attempt."""

    def __init__(
        self,
        loop: LoopThread,
        deadlines: LoopDeadlines,
        clock: ServerClock,
        put: Callable[[InFlightJob, AttemptResult], None],
    ) -> None:
        self._loop, self._deadlines, self._clock, self._put = loop, deadlines, clock, put

    def interrupt_blocked_loop(self) -> None:
        """Where a handler blocks the loop and a run on it is beyond its time limit: interrupts
        whatever runs there at that moment."""
        if self._loop.is_blocked and self._deadlines.expired():
            self._loop.limit.interrupt()

    def to_blame(self, late: Sequence[InFlightJob]) -> list[InFlightJob]:
        """The runs to blame for these, which are beyond their time limit and can't be interrupted:
        each itself; but a run that blocks the event loop is to blame for all others on it."""
        if not self._loop.is_blocked:
            return list(late)
        blamed = [job for job in late if not job.is_async]
        blocking = self._loop.current
        return blamed if blocking is None else [*blamed, blocking]

    def end(self, job: InFlightJob) -> None:
        """Ends it as a timeout."""
        self._put(job, stuck(job, self._clock.now()))
