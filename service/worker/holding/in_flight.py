"""Every job that is claimed and whose outcome isn't written yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from service.worker.holding.capacity import Capacity
from service.worker.holding.isolation import Isolation
from service.worker.holding.job import Claim, InFlightJob, Stage
from service.worker.holding.ready_jobs import ReadyJobs
from service.worker.holding.ready_line import ReadyLine
from service.worker.holding.turns import Turns
from service.worker.holding.watermarks import Watermarks

_LOOK_SECONDS = 0.1


class InFlight:
    """By id and claim; those that wait for a thread or for the event loop in their order.
    Thread-safe: one short lock for all that it counts, `capacity`, `isolation`, `watermarks` and
    `turns` included."""

    def __init__(self, capacity: Capacity, isolation: Isolation) -> None:
        self.capacity, self.isolation = capacity, isolation
        self.watermarks = Watermarks()
        self._lock = threading.Lock()
        self._jobs: dict[Claim, InFlightJob] = {}
        for_threads = ReadyLine(capacity.threads)
        self._ready = ReadyJobs(for_threads, capacity)
        self._empty = threading.Event()
        self._empty.set()
        self.turns = Turns(self._lock, for_threads, capacity, self.watermarks)

    def __len__(self) -> int:
        return len(self._jobs)

    # in and out

    def add(self, jobs: Iterable[InFlightJob]) -> list[InFlightJob]:
        """The jobs for which a thread is to be called now.

        A process that lost a job and claimed it anew holds it twice: the former run may go on, but
        what had not begun won't.
        """
        added = list(jobs)
        with self._lock:
            self.capacity.take(added)
            for job in added:
                self._jobs[job.claim] = job
                self.isolation.enter(job)
                if (former := self._ready.put(job)) is not None:
                    self._forget(former)
            if self._jobs:
                self._empty.clear()
            return self._ready.call()

    def free_place(self, job: InFlightJob, result_bytes: int = 0) -> None:
        """Its run has ended: the next job needn't wait until the outcome is written, unless the
        bytes of those that wait for it are too many."""
        with self._lock:
            if not job.has_place:
                return
            self.capacity.free_place(job, result_bytes)
            if job.stage is Stage.RUNNING:
                seconds = time.monotonic() - job.started
                self.capacity.run_times.add(job.type.name, seconds, on_thread=not job.is_async)
            if job.is_async:
                self.watermarks.places(self.capacity.free_places)

    def remove(self, jobs: Iterable[InFlightJob]) -> None:
        """Forgets jobs whose outcome is written (or fenced off)."""
        with self._lock:
            for job in jobs:
                self._forget(job)
            if not self._jobs:
                self._empty.set()
            self.watermarks.written()

    def _forget(self, job: InFlightJob) -> None:
        if self._jobs.get(job.claim) is not job:
            return
        del self._jobs[job.claim]
        self._ready.discard(job)
        self.isolation.leave(job)
        self.capacity.forget(job)

    # starting

    def start(self, jobs: Iterable[InFlightJob]) -> list[InFlightJob]:
        """Those of the coroutines that were not dropped meanwhile, now running."""
        with self._lock:
            return self._ready.start(jobs)

    def drop_ready(self) -> list[InFlightJob]:
        """All that hasn't started, and now won't: for giving it back."""
        with self._lock:
            return self._ready.clear()

    # questions

    def running(self) -> list[InFlightJob]:
        with self._lock:
            return [j for j in self._jobs.values() if j.stage is Stage.RUNNING and not j.settled]

    def held_longer_than(self, seconds: float) -> list[InFlightJob]:
        """The jobs that were claimed before that."""
        before = time.monotonic() - seconds
        with self._lock:
            return [job for job in self._jobs.values() if job.since < before]

    def holds(self, job_id: str, claim: str) -> bool:
        return (job_id, claim) in self._jobs

    def wait_until_empty(self, seconds: float, unless: threading.Event | None = None) -> bool:
        """Waits until nothing is held; whether that came in time."""
        if unless is None:
            return self._empty.wait(seconds)
        deadline = time.monotonic() + seconds
        while not unless.is_set() and (left := deadline - time.monotonic()) > 0:
            if self._empty.wait(min(left, _LOOK_SECONDS)):
                return True
        return self._empty.is_set()
