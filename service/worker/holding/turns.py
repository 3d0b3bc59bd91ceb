"""What the threads that were called get to run."""

from __future__ import annotations

import threading
import time

from service.worker.holding.capacity import Capacity
from service.worker.holding.job import InFlightJob
from service.worker.holding.ready_line import ReadyLine
from service.worker.holding.watermarks import Watermarks


class Turns:
    """Each thread that was called runs one job after the other, as long as there are any. A part of
    `InFlight`, under its lock."""

    def __init__(
        self, lock: threading.Lock, line: ReadyLine, capacity: Capacity, watermarks: Watermarks
    ) -> None:
        self._lock, self._line, self._capacity, self._watermarks = lock, line, capacity, watermarks

    def begin(self, job_id: str) -> InFlightJob | None:
        """For a thread that was called: its first job, now running; None: it came in vain."""
        with self._lock:
            return self._started(self._line.begin_turn(job_id))

    def next(self) -> InFlightJob | None:
        """The next job for this thread, now running; None ends its turn."""
        with self._lock:
            return self._started(self._line.next())

    def end(self) -> list[InFlightJob]:
        """Ends a turn though jobs may be left: those for which a thread is to be called instead."""
        with self._lock:
            return self._line.end_turn()

    def recall(self, messages: int) -> list[InFlightJob]:
        """Where more threads were called than there are messages that call them, calls got lost:
        the jobs for which to call again."""
        with self._lock:
            if self._line.called > messages and len(self._line):
                self._line.forget_calls()
            return self._line.call()

    @property
    def called(self) -> int:
        """How many threads are on their way to a turn."""
        return self._line.called

    def _started(self, job: InFlightJob | None) -> InFlightJob | None:
        if job is None:
            self._watermarks.ready(-1)
            return None
        self._capacity.leave_line(job)
        job.start(time.monotonic())
        self._watermarks.ready(len(self._line))
        return job
