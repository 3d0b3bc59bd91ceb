"""Runs handlers: a job in, an `Ending` out.

A synchronous handler runs in the Dramatiq worker thread that has its message, under Dramatiq's
`TimeLimit`. An asynchronous one is handed to the process's one event loop and the thread goes on:
the outcome is handed over when there is one, rather than returned up the thread's stack.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

import dramatiq
import orjson
import structlog
from dramatiq.middleware import TimeLimitExceeded
from dramatiq.threading import raise_thread_exception

from actors.lease import Lease
from actors.registry import Held, Registry
from service.clock import ServerClock
from service.crash import crash_point
from service.errors import Cancelled, Reject, RetryLater
from service.job import Ending, Outcome

_log = logging.getLogger(__name__)
_EXPIRY_TICK_SECONDS = 0.1
_NOTICED_LAG_SECONDS = 0.5
_BLOCKED_SECONDS = 2.0
MAX_RESULT_BYTES = 1_048_576
MAX_PROGRESS_BYTES = 65_536
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of a NUL in JSON; after an odd backslash it is only text that looks like it."""


class Run:
    """The `Context` of one attempt."""

    __slots__ = ("_held", "_on_progress")

    def __init__(self, held: Held, on_progress: Callable[[Held, Any], None]) -> None:
        self._held, self._on_progress = held, on_progress

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

    def progress(self, value: Any) -> None:
        try:
            encoded = orjson.dumps(value)
        except TypeError as error:
            raise ValueError(f"this progress is not JSON: {error}") from error
        if len(encoded) > MAX_PROGRESS_BYTES:
            raise ValueError(f"this progress has more than {MAX_PROGRESS_BYTES} bytes")
        self._on_progress(self._held, orjson.loads(encoded))


class Runner:
    """`run(job_id)` is the body of every event type's Dramatiq actor."""

    def __init__(
        self,
        registry: Registry,
        lease: Lease,
        clock: ServerClock,
        put: Callable[[Held, Ending], None],
        on_progress: Callable[[Held, Any], None],
    ) -> None:
        self._registry, self._lease, self._clock, self._put = registry, lease, clock, put
        self._on_progress = on_progress
        self.stopping = threading.Event()
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
            self._put(held, Ending(Outcome.UNSTARTED, self._clock.now()))
        elif held.type.is_async:
            self.loop.submit(held)
        else:
            self._run_sync(held)

    def give_back_waiting(self) -> None:
        """Gives back all that hasn't started; that costs no attempt."""
        for held in self._registry.drop_waiting():
            self._put(held, Ending(Outcome.UNSTARTED, self._clock.now()))

    def give_back_running(self) -> int:
        """Gives back what still runs; its late outcome won't count. How many jobs that were."""
        running, now = self._registry.running(), self._clock.now()
        for held in running:
            self._put(held, Ending(Outcome.RELEASED, now, message="the worker stopped"))
            if held.task is not None:
                self.loop.cancel(held.task)
        return len(running)

    def end_stuck(self, held: Held) -> None:
        """Ends, as a timeout, a run that its time limit could not interrupt."""
        self._put(held, _timeout(held, self._clock.now(), held.job.started_at))

    # one attempt

    def _run_sync(self, held: Held) -> None:
        """`TimeLimit` may strike at any line of this: until an ending is handed over, it is caught;
        a second one for the same run doesn't count."""
        started_at = self._clock.now()
        try:
            with structlog.contextvars.bound_contextvars(**_log_fields(held)):
                try:
                    result = held.type.handler(held.job.payload, self._context(held))
                    ending = _completed(result, self._clock.now(), started_at)
                except Exception as error:
                    ending = _failed(error, self._clock.now(), started_at)
            self._put(held, ending)
        except TimeLimitExceeded:
            self._put(held, _timeout(held, self._clock.now(), started_at))
        except BaseException as error:  # SystemExit is a failure of the job, not of the worker
            self._put(held, _failed(error, self._clock.now(), started_at))

    async def _run_async(self, held: Held) -> None:
        started_at = self._clock.now()
        structlog.contextvars.bind_contextvars(**_log_fields(held))
        try:
            crash_point("worker.started")
            result = await held.type.handler(held.job.payload, self._context(held))
            ending = _completed(result, self._clock.now(), started_at)
        except TimeLimitExceeded:
            ending = _timeout(held, self._clock.now(), started_at)
        except asyncio.CancelledError as error:
            late = time.monotonic() >= held.deadline
            at = self._clock.now()
            ending = _timeout(held, at, started_at) if late else _failed(error, at, started_at)
        except BaseException as error:
            ending = _failed(error, self._clock.now(), started_at)
        self._put(held, ending)

    def _context(self, held: Held) -> Run:
        return Run(held, self._on_progress)

    def _expired(self) -> list[Held]:
        now = time.monotonic()
        return [h for h in self._registry.running() if h.task is not None and h.deadline <= now]

    def _extend(self, seconds: float) -> None:
        for held in self._registry.running():
            if held.task is not None:
                held.deadline += seconds

    def interrupt_blocked_loop(self) -> None:
        """Where a handler blocks the loop and somebody is beyond his time limit: interrupts it, as
        `TimeLimit` interrupts a thread. It strikes whoever runs at that moment."""
        if self.loop.is_blocked and self._expired():
            raise_thread_exception(  # type: ignore[no-untyped-call]
                self.loop.ident, TimeLimitExceeded
            )


class LoopThread(threading.Thread):
    """The event loop of asynchronous handlers; hands many jobs over with one wake-up."""

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
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop = _new_loop()
        self.last_tick = time.monotonic()

    def run(self) -> None:
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

    def _start_all(self) -> None:
        self._woken = False
        while self._submitted:
            held = self._submitted.popleft()
            if held.settled:
                continue  # given back before it began
            held.task = task = self.loop.create_task(self._run_one(held))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not self._watching:
            self._watching = True
            self.last_tick = time.monotonic()
            self.loop.call_later(_EXPIRY_TICK_SECONDS, self._expire)

    def _expire(self) -> None:
        """Cancels what is beyond its time limit; sleeps while nothing runs.

        A handler that blocked the loop took that time from all others: they get it back.
        """
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


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _completed(result: Any, at: datetime, started_at: datetime) -> Ending:
    try:
        encoded = orjson.dumps(result)
    except TypeError as error:
        return Ending(
            Outcome.REJECTED, at, message=f"the result is not JSON: {error}", started_at=started_at
        )
    if len(encoded) > MAX_RESULT_BYTES or _NUL.search(encoded):
        message = f"the result has NUL characters or more than {MAX_RESULT_BYTES} bytes"
        return Ending(Outcome.REJECTED, at, message=message, started_at=started_at)
    return Ending(Outcome.COMPLETED, at, orjson.loads(encoded), started_at=started_at)


def _failed(error: BaseException, at: datetime, started_at: datetime) -> Ending:
    message = _storable(f"{type(error).__name__}: {_text(error)}")
    match error:
        case Cancelled():
            return Ending(Outcome.CANCELLED, at, started_at=started_at)
        case Reject():
            return Ending(
                Outcome.REJECTED, at, message=_storable(_text(error)), started_at=started_at
            )
        case RetryLater():
            return Ending(
                Outcome.ERROR,
                at,
                message=_storable(_text(error)),
                delay_ms=error.delay_ms,
                started_at=started_at,
            )
        case dramatiq.Retry() if error.delay is not None:
            return Ending(
                Outcome.ERROR,
                at,
                message=message,
                delay_ms=_milliseconds(error.delay),
                started_at=started_at,
            )
    _log.info("attempt failed", exc_info=error)
    return Ending(Outcome.ERROR, at, message=message, started_at=started_at)


def _text(error: BaseException) -> str:
    """What the error says, even where it can't."""
    try:
        return str(error)
    except Exception as another:
        return f"(its text can't be had: {type(another).__name__})"


def _milliseconds(delay: Any) -> int | None:
    """The wait that a handler asked for, if it is a number."""
    try:
        return int(delay)
    except (TypeError, ValueError, OverflowError):
        return None


def _storable(text: str) -> str:
    """A message as BSON can hold it: no lone surrogates, no novel."""
    return text[:2_000].encode("utf-8", "replace").decode()


def _timeout(held: Held, at: datetime, started_at: datetime) -> Ending:
    message = f"ran beyond its time limit of {held.job.time_limit_ms} ms"
    return Ending(Outcome.TIMEOUT, at, message=message, started_at=started_at)


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
