"""Claimed jobs that have not started: they wait for a thread, or for the event loop."""

from __future__ import annotations

import time
from collections.abc import Iterable

from service.worker.holding.capacity import Capacity
from service.worker.holding.job import InFlightJob, Stage
from service.worker.holding.ready_line import ReadyLine


class ReadyJobs:
    """In their order. Guarded by the lock of `InFlight`."""

    def __init__(self, for_threads: ReadyLine, capacity: Capacity) -> None:
        self._for_threads, self._capacity = for_threads, capacity
        self._for_loop: dict[str, InFlightJob] = {}

    def put(self, job: InFlightJob) -> InFlightJob | None:
        """The former claim of the same job that waited here: it won't start."""
        if job.is_async:
            former = self._for_loop.pop(job.job.id, None)
            self._for_loop[job.job.id] = job
        else:
            former = self._for_threads.put(job)
        if former is not None:
            self._drop(former)
        return former

    def call(self) -> list[InFlightJob]:
        """The jobs for which a thread is to be called now."""
        return self._for_threads.call()

    def start(self, jobs: Iterable[InFlightJob]) -> list[InFlightJob]:
        """Those of the coroutines that still wait, now running."""
        started, now = [], time.monotonic()
        for job in jobs:
            if self._for_loop.get(job.job.id) is job:
                del self._for_loop[job.job.id]
                job.start(now)
                started.append(job)
        return started

    def discard(self, job: InFlightJob) -> None:
        """If it waits here, it won't start."""
        if self._for_threads.discard(job):
            self._drop(job)
        elif self._for_loop.get(job.job.id) is job:
            del self._for_loop[job.job.id]
            self._drop(job)

    def clear(self) -> list[InFlightJob]:
        """All of them; none will start."""
        dropped = [*self._for_threads.clear(), *self._for_loop.values()]
        self._for_loop.clear()
        for job in dropped:
            self._drop(job)
        return dropped

    def _drop(self, job: InFlightJob) -> None:
        job.stage = Stage.DROPPED
        self._capacity.leave_line(job)
