"""Jobs that wait for a thread, and threads that are on their way to them."""

from __future__ import annotations

from itertools import islice

from service.worker.holding.job import InFlightJob


class ReadyLine:
    """So many threads are called as there are jobs for idle ones: a job never waits while a thread
    is idle, and hardly a thread comes in vain. Guarded by the lock of `InFlight`."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._jobs: dict[str, InFlightJob] = {}
        self._busy = self._called = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: InFlightJob) -> InFlightJob | None:
        """At the end of the line; the former claim of the same job, which this one replaces."""
        former = self._jobs.pop(job.job.id, None)
        self._jobs[job.job.id] = job
        return former

    def discard(self, job: InFlightJob) -> bool:
        """Whether it was in line."""
        if self._jobs.get(job.job.id) is not job:
            return False
        del self._jobs[job.job.id]
        return True

    def call(self) -> list[InFlightJob]:
        """The jobs for which a thread is to be called now; each call begins a turn one day."""
        idle = self._threads - self._busy - self._called
        count = min(idle, len(self._jobs) - self._called)
        called = list(islice(self._jobs.values(), self._called, self._called + max(0, count)))
        self._called += len(called)
        return called

    def begin_turn(self, job_id: str) -> InFlightJob | None:
        """A called thread is there: it gets the job that it was called for or, where another took
        that, the first one."""
        self._called = max(0, self._called - 1)
        self._busy += 1
        if (job := self._jobs.pop(job_id, None)) is not None:
            return job
        return self.next()

    def next(self) -> InFlightJob | None:
        """The next job of a turn; None ends it."""
        if not self._jobs:
            self._busy -= 1
            return None
        return self._jobs.pop(next(iter(self._jobs)))

    def end_turn(self) -> list[InFlightJob]:
        """The thread has something else to do; the job for which one is to be called in its
        place."""
        self._busy -= 1
        return self.call()

    def forget_calls(self) -> None:
        """Those that are on their way got lost."""
        self._called = 0

    @property
    def called(self) -> int:
        return self._called

    def clear(self) -> list[InFlightJob]:
        jobs = list(self._jobs.values())
        self._jobs.clear()
        return jobs
