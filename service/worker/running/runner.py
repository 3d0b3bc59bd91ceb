"""Runs handlers: a job in, an `AttemptResult` out.

A synchronous handler runs in the Dramatiq worker thread that has its message. An asynchronous one
is handed to the process's one event loop and the thread goes on: the outcome is handed over when
there is one, rather than returned up the thread's stack. A run beyond its time limit is interrupted
in its handler, never while it holds what others wait for.
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
from service.worker.registry import Held, Registry
from service.worker.running.event_loop import LoopThread
from service.worker.running.plain_json import encoded
from service.worker.running.results import completed, failed, stuck, timed_out
from service.worker.running.time_limits import Interruptible, TimeLimits

MAX_PROGRESS_BYTES = 65_536


class Run:
    """The `Context` of one attempt."""

    __slots__ = ("_clock", "_held", "_limit", "_on_progress")

    def __init__(
        self,
        held: Held,
        limit: Interruptible,
        clock: ServerClock,
        on_progress: Callable[[Held, Any], None],
    ) -> None:
        self._held, self._limit = held, limit
        self._clock, self._on_progress = clock, on_progress

    @property
    def id(self) -> str:
        return self._held.job.id

    @property
    def attempt(self) -> int:
        return self._held.job.attempts

    @property
    def request_id(self) -> str | None:
        return self._held.job.request_id

    @property
    def traceparent(self) -> str | None:
        return self._held.job.traceparent

    def is_cancelled(self) -> bool:
        return self._held.cancelled

    def remaining_ms(self) -> int:
        return max(0, int((self._held.deadline - time.monotonic()) * 1000))

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
        self._limit.shield(lambda: self._on_progress(self._held, note))


class Runner:
    """`run(job_id)` is the body of every event type's Dramatiq actor."""

    def __init__(
        self,
        registry: Registry,
        lease: Lease,
        clock: ServerClock,
        put: Callable[[Held, AttemptResult], None],
        on_progress: Callable[[Held, Any], None],
        *,
        limits: TimeLimits,
    ) -> None:
        self._registry, self._lease, self._clock, self._put = registry, lease, clock, put
        self._on_progress = on_progress
        self.stopping = threading.Event()
        self.limits = limits
        self.loop = LoopThread(self._run_async, self._expired, self._extend)

    def run(self, job_id: str) -> None:
        """Starts the job that this process holds under that id, if it still does."""
        if not self._lease.is_valid or self.stopping.is_set():
            self.give_back_waiting()
            return
        held = self._registry.start(job_id)
        if held is None:
            return
        if held.cancelled:  # asked for before it began: its attempt is not even charged
            self._put(held, AttemptResult(Outcome.UNSTARTED, self._clock.now()))
        elif held.type.is_async:
            self.loop.submit(held)
        else:
            self._run_sync(held)

    def give_back_waiting(self) -> None:
        """Gives back all that hasn't started; that costs no attempt."""
        for held in self._registry.drop_waiting():
            self._put(held, AttemptResult(Outcome.UNSTARTED, self._clock.now()))

    def give_back_running(self) -> int:
        """Gives back what still runs; its late outcome won't count. How many jobs that were."""
        running, now = self._registry.running(), self._clock.now()
        for held in running:
            self._put(held, AttemptResult(Outcome.RELEASED, now, message="the worker stopped"))
            if held.task is not None:
                self.loop.cancel(held.task)
        return len(running)

    def to_blame(self, late: Sequence[Held]) -> list[Held]:
        """Whose fault it is that these runs are beyond their time limit and can't be interrupted:
        their own; but where somebody blocks the event loop, he keeps all others on it waiting."""
        if not self.loop.is_blocked:
            return list(late)
        blamed = [held for held in late if not held.type.is_async]
        blocking = self.loop.current
        return blamed if blocking is None else [*blamed, blocking]

    def end_stuck(self, held: Held) -> None:
        """Ends, as a timeout, a run that could not be interrupted."""
        self._put(held, stuck(held, self._clock.now()))

    # one attempt

    def _run_sync(self, held: Held) -> None:
        started_at = self._clock.now()
        with structlog.contextvars.bound_contextvars(**_log_fields(held)):
            attempt_result = self._attempt_result(held, started_at)
        self._put(held, attempt_result)

    def _attempt_result(self, held: Held, started_at: datetime) -> AttemptResult:
        limit = self.limits.here()
        context = self._context(held, limit)
        try:
            try:
                limit.allow()
                result = held.type.handler(held.job.payload, context)
            finally:
                limit.refuse()
        except TimeLimitExceeded:
            return timed_out(held, self._clock.now(), started_at)
        except BaseException as error:  # SystemExit is a failure of the job, not of the worker
            return failed(error, self._clock.now(), started_at)
        return completed(result, self._clock.now(), started_at)

    async def _run_async(self, held: Held) -> None:
        started_at = self._clock.now()
        structlog.contextvars.bind_contextvars(**_log_fields(held))
        limit = self.loop.limit
        try:
            try:
                crash_point("worker.started")
                result = await held.type.handler(held.job.payload, self._context(held, limit))
            finally:
                limit.refuse()
            attempt_result = completed(result, self._clock.now(), started_at)
        except TimeLimitExceeded:
            attempt_result = timed_out(held, self._clock.now(), started_at)
        except asyncio.CancelledError as error:
            late = time.monotonic() >= held.deadline
            at = self._clock.now()
            attempt_result = (
                timed_out(held, at, started_at) if late else failed(error, at, started_at)
            )
        except BaseException as error:
            attempt_result = failed(error, self._clock.now(), started_at)
        self._put(held, attempt_result)
        limit.allow()

    def _context(self, held: Held, limit: Interruptible) -> Run:
        return Run(held, limit, self._clock, self._on_progress)

    def _expired(self) -> list[Held]:
        now = time.monotonic()
        return [h for h in self._registry.running() if h.task is not None and h.deadline <= now]

    def _extend(self, seconds: float) -> None:
        for held in self._registry.running():
            if held.task is not None:
                held.deadline += seconds

    def interrupt_blocked_loop(self) -> None:
        """Where a handler blocks the loop and somebody is beyond his time limit: interrupts
        whoever runs there at that moment."""
        if self.loop.is_blocked and self._expired():
            self.loop.limit.interrupt()


def _log_fields(held: Held) -> dict[str, Any]:
    job = held.job
    return {
        "event_id": job.id,
        "type": job.type,
        "attempt": job.attempts,
        "worker": job.worker,
        "request_id": job.request_id,
        "traceparent": job.traceparent,
    }
