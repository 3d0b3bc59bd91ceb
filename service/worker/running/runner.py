"""Runs handlers: a job in, an `AttemptResult` out.

A plain function runs on one of Dramatiq's worker threads, which is called by a message and then
runs one ready job after the other. A coroutine goes straight to the process's one event loop and
needs no thread: its outcome is handed over when there is one. A run beyond its time limit is
interrupted in its handler, never while it holds what others wait for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import orjson
import structlog
from dramatiq.middleware import TimeLimitExceeded

from service.clock import ServerClock
from service.crash import crash_point
from service.job import AttemptResult, Outcome
from service.worker.fleet.lease import Lease
from service.worker.holding.in_flight import InFlight
from service.worker.holding.job import InFlightJob, Stage
from service.worker.running.event_loop import LoopThread
from service.worker.running.plain_json import encoded
from service.worker.running.results import completed, failed, stuck, timed_out
from service.worker.running.threads import WorkerThreads
from service.worker.running.time_limits import Interruptible, TimeLimits

MAX_PROGRESS_BYTES = 65_536
_TURN_JOBS, _TURN_SECONDS = 50, 0.1


class Run:
    """The `Context` of one attempt."""

    __slots__ = ("_clock", "_job", "_limit", "_on_progress")

    def __init__(
        self,
        job: InFlightJob,
        limit: Interruptible,
        clock: ServerClock,
        on_progress: Callable[[InFlightJob, Any], None],
    ) -> None:
        self._job, self._limit = job, limit
        self._clock, self._on_progress = clock, on_progress

    @property
    def id(self) -> str:
        return self._job.job.id

    @property
    def attempt(self) -> int:
        return self._job.job.attempts

    @property
    def request_id(self) -> str | None:
        return self._job.job.request_id

    @property
    def traceparent(self) -> str | None:
        return self._job.job.traceparent

    def is_cancelled(self) -> bool:
        return self._job.cancelled

    def remaining_ms(self) -> int:
        return max(0, int((self._job.deadline - time.monotonic()) * 1000))

    def now(self) -> datetime:
        return self._clock.now()

    def progress(self, value: Any) -> None:
        try:
            text = encoded(value)
        except TypeError as error:
            raise ValueError(f"this progress is not JSON: {error}") from error
        if len(text) > MAX_PROGRESS_BYTES:
            raise ValueError(f"this progress has more than {MAX_PROGRESS_BYTES} bytes")
        note = orjson.loads(text)
        self._limit.shield(lambda: self._on_progress(self._job, note))


class Runner:
    """`run(job_id)` is the body of every event type's Dramatiq actor: called, it may run another
    job than that, and more than one."""

    def __init__(
        self,
        in_flight: InFlight,
        lease: Lease,
        clock: ServerClock,
        put: Callable[[InFlightJob, AttemptResult], None],
        on_progress: Callable[[InFlightJob, Any], None],
        *,
        limits: TimeLimits,
        threads: WorkerThreads,
    ) -> None:
        self._in_flight, self._lease, self._clock, self._put = in_flight, lease, clock, put
        self._on_progress = on_progress
        self.stopping = threading.Event()
        self.limits, self._threads = limits, threads
        self.loop = LoopThread(self._begin, self._run_async, self._expired, self._extend)

    def hand_over(self, called_for: Sequence[InFlightJob], jobs: Sequence[InFlightJob]) -> None:
        """Starts what was claimed: coroutines go straight to the event loop, and a thread is called
        for each of `called_for`."""
        self.loop.submit(job for job in jobs if job.is_async)
        self._threads.call(called_for)

    def run(self, job_id: str) -> None:
        """The turn of a thread: it runs the job that it was called for, and then what else is
        ready. After a while it makes room for other messages that wait for a thread."""
        turns, began, count = self._in_flight.turns, time.monotonic(), 0
        job = turns.begin(job_id)
        try:
            while job is not None:
                self._run_ready(job)
                count += 1
                if self._must_end(count, began):
                    break
                job = turns.next()
        finally:  # also where something went wrong that no handler did
            if job is not None:
                self._threads.call(turns.end())

    def _must_end(self, count: int, began: float) -> bool:
        if count < _TURN_JOBS and time.monotonic() - began < _TURN_SECONDS:
            return False
        return self._threads.messages > self._in_flight.turns.called

    def look_for_lost_calls(self) -> None:
        """A message that called a thread may have come to nothing on its way."""
        self._threads.call(self._in_flight.turns.recall(self._threads.messages))

    def _run_ready(self, job: InFlightJob) -> None:
        if self._may_start(job):
            self._run_sync(job)

    def _begin(self, jobs: list[InFlightJob]) -> list[InFlightJob]:
        """Of those that were submitted to the event loop, the ones that start."""
        return [job for job in self._in_flight.start(jobs) if self._may_start(job)]

    def _may_start(self, job: InFlightJob) -> bool:
        """Otherwise it is given back: that costs no attempt, also where a client asked to cancel it
        before it began."""
        if self._lease.is_valid and not self.stopping.is_set():
            if not job.cancelled:
                return True
        else:
            self.give_back_waiting()
        job.stage = Stage.DROPPED
        self._put(job, AttemptResult(Outcome.UNSTARTED, self._clock.now()))
        return False

    def give_back_waiting(self) -> None:
        """Gives back all that hasn't started; that costs no attempt."""
        for job in self._in_flight.drop_ready():
            self._put(job, AttemptResult(Outcome.UNSTARTED, self._clock.now()))

    def give_back_running(self) -> int:
        """Gives back what still runs; its late outcome won't count. How many jobs that were."""
        running, now = self._in_flight.running(), self._clock.now()
        for job in running:
            self._put(job, AttemptResult(Outcome.RELEASED, now, message="the worker stopped"))
            if job.task is not None:
                self.loop.cancel(job.task)
        return len(running)

    def to_blame(self, late: Sequence[InFlightJob]) -> list[InFlightJob]:
        """Whose fault it is that these runs are beyond their time limit and can't be interrupted:
        their own; but where somebody blocks the event loop, he keeps all others on it waiting."""
        if not self.loop.is_blocked:
            return list(late)
        blamed = [job for job in late if not job.type.is_async]
        blocking = self.loop.current
        return blamed if blocking is None else [*blamed, blocking]

    def end_stuck(self, job: InFlightJob) -> None:
        """Ends, as a timeout, a run that could not be interrupted."""
        self._put(job, stuck(job, self._clock.now()))

    # one attempt

    def _run_sync(self, job: InFlightJob) -> None:
        started_at = self._clock.now()
        with structlog.contextvars.bound_contextvars(**_log_fields(job)):
            attempt_result = self._attempt_result(job, started_at)
        self._put(job, attempt_result)

    def _attempt_result(self, job: InFlightJob, started_at: datetime) -> AttemptResult:
        limit = self.limits.here(job.deadline)
        context = self._context(job, limit)
        try:
            try:
                limit.allow()
                result = job.type.handler(job.job.payload, context)
            finally:
                limit.refuse()
        except TimeLimitExceeded:
            return timed_out(job, self._clock.now(), started_at)
        except BaseException as error:  # SystemExit is a failure of the job, not of the worker
            return failed(error, self._clock.now(), started_at)
        return completed(result, self._clock.now(), started_at)

    async def _run_async(self, job: InFlightJob) -> None:
        started_at = self._clock.now()
        structlog.contextvars.bind_contextvars(**_log_fields(job))
        limit = self.loop.limit
        try:
            try:
                crash_point("worker.started")
                result = await job.type.handler(job.job.payload, self._context(job, limit))
            finally:
                limit.refuse()
            attempt_result = completed(result, self._clock.now(), started_at)
        except TimeLimitExceeded:
            attempt_result = timed_out(job, self._clock.now(), started_at)
        except asyncio.CancelledError as error:
            late = time.monotonic() >= job.deadline
            at = self._clock.now()
            attempt_result = (
                timed_out(job, at, started_at) if late else failed(error, at, started_at)
            )
        except BaseException as error:
            attempt_result = failed(error, self._clock.now(), started_at)
        self._put(job, attempt_result)
        limit.allow()

    def _context(self, job: InFlightJob, limit: Interruptible) -> Run:
        return Run(job, limit, self._clock, self._on_progress)

    def _expired(self) -> list[InFlightJob]:
        now = time.monotonic()
        return [h for h in self._in_flight.running() if h.task is not None and h.deadline <= now]

    def _extend(self, seconds: float) -> None:
        for job in self._in_flight.running():
            if job.task is not None:
                job.deadline += seconds

    def interrupt_blocked_loop(self) -> None:
        """Where a handler blocks the loop and somebody is beyond his time limit: interrupts
        whoever runs there at that moment."""
        if self.loop.is_blocked and self._expired():
            self.loop.limit.interrupt()


def _log_fields(claimed: InFlightJob) -> dict[str, Any]:
    job = claimed.job
    return {
        "event_id": job.id,
        "type": job.type,
        "attempt": job.attempts,
        "worker": job.worker,
        "request_id": job.request_id,
        "traceparent": job.traceparent,
    }
