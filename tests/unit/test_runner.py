"""Running handlers: what every way to end is taken for."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import dramatiq
import pytest
import structlog

from service.clock import ServerClock
from service.errors import Cancelled, Reject, RetryLater
from service.job import AttemptResult, Outcome
from service.worker.fleet.lease import Lease
from service.worker.holding.capacity import Capacity
from service.worker.holding.in_flight import InFlight
from service.worker.holding.isolation import Isolation
from service.worker.holding.job import InFlightJob
from service.worker.running.results import MAX_RESULT_BYTES
from service.worker.running.runner import Runner
from service.worker.running.time_limits import TimeLimits
from tests.factories import done, done_async, eventually, make_held, make_type


class FakeThreads:
    """Dramatiq's work queue: who was called, and how many messages wait in it."""

    def __init__(self) -> None:
        self.called: list[InFlightJob] = []
        self.messages = 0

    def call(self, jobs: Iterable[InFlightJob]) -> None:
        self.called += jobs


class Bench:
    """A runner, and the attempt results that it handed over."""

    def __init__(self) -> None:
        self.in_flight = InFlight(Capacity(8, 1_000), Isolation())
        self.threads = FakeThreads()
        self.lease = Lease(60)
        self.lease.renew(time.monotonic())
        self.attempt_results: list[tuple[InFlightJob, AttemptResult]] = []
        self.progress: list[Any] = []
        self.clock = ServerClock()
        self.runner = Runner(
            self.in_flight,
            self.lease,
            self.clock,
            self._put,
            self._on_progress,
            limits=TimeLimits(),
            threads=self.threads,  # type: ignore[arg-type]
        )

    def _on_progress(self, _held: InFlightJob, value: Any) -> None:
        self.progress.append(value)

    def _put(self, held: InFlightJob, attempt_result: AttemptResult) -> None:
        self.in_flight.free_place(held)
        self.attempt_results.append((held, attempt_result))

    def hold(self, handler: Callable[..., Any], **job: Any) -> InFlightJob:
        held = make_held(make_type(handler=handler), **job)
        self.in_flight.add([held])
        return held

    def start(self, held: InFlightJob) -> None:
        """As whoever claims does, and the thread that is called."""
        if held.is_async:
            self.runner.hand_over([], [held])
        else:
            self.runner.run(held.job.id)

    def run(self, handler: Callable[..., Any], **job: Any) -> AttemptResult:
        """Runs one job to its end."""
        held = self.hold(handler, **job)
        self.start(held)
        ((_, attempt_result),) = eventually(
            lambda: [e for e in self.attempt_results if e[0] is held]
        )
        return attempt_result


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.runner.loop.start()
    yield bench
    bench.runner.loop.stop()
    bench.runner.loop.join(5)
    bench.runner.loop.loop.close()


def as_sync(act: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return act


def as_async(act: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    async def handler(payload: Any, context: Any) -> Any:
        await asyncio.sleep(0)
        return act(payload, context)

    return handler


both_kinds = pytest.mark.parametrize("kind", [as_sync, as_async])


def raising(error: BaseException) -> Callable[[Any, Any], Any]:
    def act(_payload: Any, _context: Any) -> Any:
        raise error

    return act


# results


@dataclass
class Figures:
    ratio: float


class Ratio(Enum):
    UNKNOWN = math.nan


def test_a_result_that_holds_no_number_says_so(bench: Bench) -> None:
    end = bench.run(lambda _p, _c: {"mean": [None, math.nan]})
    assert end.message == "the result is not JSON: it holds NaN or Infinity"


@both_kinds
@pytest.mark.parametrize(
    ("result", "stored"),
    [
        (None, None),
        ({"a": [1, 2.5, "x", True, None]}, {"a": [1, 2.5, "x", True, None]}),
        ((1, 2), [1, 2]),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (datetime(2026, 1, 2), "2026-01-02T00:00:00"),  # noqa: DTZ001
        ([None, "null", "NaN"], [None, "null", "NaN"]),
        ("\\u0000 in letters", "\\u0000 in letters"),
        ("\\\\u0000", "\\\\u0000"),
        ({"$set": {"a.b": "$$NOW"}}, {"$set": {"a.b": "$$NOW"}}),
    ],
)
def test_a_json_value_is_the_result(bench: Bench, kind: Any, result: Any, stored: Any) -> None:
    end = bench.run(kind(lambda _p, _c: result))
    assert (end.outcome, end.result) == (Outcome.COMPLETED, stored)


@both_kinds
@pytest.mark.parametrize(
    "result",
    [
        object(),
        {1, 2},
        b"bytes",
        {1: "a key that is no text"},
        2**64,
        -(2**63) - 1,
        math.inf,
        {"ratios": [None, 1.5, (0.5, -math.inf)]},
        Figures(ratio=math.nan),
        Ratio.UNKNOWN,
        "NUL \x00",
        {"NUL \x00": 1},
        "\\\x00",
        "\ud800",
        "x" * MAX_RESULT_BYTES,
    ],
    ids=lambda r: repr(r)[:20],
)
def test_what_cannot_be_stored_as_json_is_a_rejection(bench: Bench, kind: Any, result: Any) -> None:
    end = bench.run(kind(lambda _p, _c: result))
    assert (end.outcome, end.result) == (Outcome.REJECTED, None)
    assert end.message


def test_a_result_without_end_is_a_rejection(bench: Bench) -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert bench.run(lambda _p, _c: loop).outcome is Outcome.REJECTED


@pytest.mark.parametrize("result", [2**63, 2**64 - 1, {"deep": [2**63]}])
def test_what_is_json_and_only_bson_refuses_is_left_to_the_committer(
    bench: Bench, result: Any
) -> None:
    assert bench.run(lambda _p, _c: result).outcome is Outcome.COMPLETED


def test_a_result_is_taken_as_it_is_when_the_handler_returns(bench: Bench) -> None:
    shared = {"n": 1}
    end = bench.run(lambda _p, _c: shared)
    shared["n"] = 2
    assert end.result == {"n": 1}


# failures


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@both_kinds
@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (RuntimeError("boom"), Outcome.ERROR, "RuntimeError: boom"),
        (Reject("no such address"), Outcome.REJECTED, "no such address"),
        (Cancelled(), Outcome.CANCELLED, None),
        (SystemExit(3), Outcome.ERROR, "SystemExit: 3"),
        (KeyboardInterrupt(), Outcome.ERROR, "KeyboardInterrupt: "),
        (GeneratorExit(), Outcome.ERROR, "GeneratorExit: "),
        (asyncio.CancelledError(), Outcome.ERROR, "CancelledError: "),
        (RuntimeError("\ud800 x"), Outcome.ERROR, "RuntimeError: ? x"),
        (Hostile(), Outcome.ERROR, "Hostile"),
    ],
    ids=lambda e: type(e).__name__ if isinstance(e, BaseException) else None,
)
def test_what_a_handler_raises_says_how_it_ended(
    bench: Bench, kind: Any, error: BaseException, outcome: Outcome, message: str | None
) -> None:
    end = bench.run(kind(raising(error)))
    assert end.outcome is outcome
    assert (end.message or "").startswith(message or "")


def test_a_message_is_no_novel(bench: Bench) -> None:
    end = bench.run(raising(RuntimeError("x" * 1_000_000)))
    assert len(end.message or "") <= 2_000


@both_kinds
@pytest.mark.parametrize("error", [RetryLater("later", 1_500), dramatiq.Retry("x", delay=1_500)])
def test_a_handler_may_say_when_to_try_again(bench: Bench, kind: Any, error: Exception) -> None:
    end = bench.run(kind(raising(error)))
    assert (end.outcome, end.delay_ms) == (Outcome.ERROR, 1_500)


@pytest.mark.parametrize("delay", [math.nan, math.inf, "soon", [1]])
def test_a_wish_that_is_no_number_is_none(bench: Bench, delay: Any) -> None:
    end = bench.run(raising(dramatiq.Retry("x", delay=delay)))
    assert (end.outcome, end.delay_ms) == (Outcome.ERROR, None)


@pytest.mark.parametrize("delay", [math.nan, "soon"])
def test_retry_later_refuses_what_is_no_number(delay: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        RetryLater("x", delay)


# time limits


async def sleeps_long(_payload: Any, _context: Any) -> None:
    await asyncio.sleep(60)


def test_an_asynchronous_run_beyond_its_limit_is_a_timeout(bench: Bench) -> None:
    end = bench.run(sleeps_long, time_limit_ms=150)
    assert end.outcome is Outcome.TIMEOUT
    assert "150 ms" in (end.message or "")


def test_a_handler_that_ignores_its_cancellation_is_told_again(bench: Bench) -> None:
    told = []

    async def stubborn(_payload: Any, _context: Any) -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.append(1)
        await asyncio.sleep(60)

    assert bench.run(stubborn, time_limit_ms=100).outcome is Outcome.TIMEOUT
    assert len(told) == 3


def test_a_synchronous_run_that_is_struck_is_a_timeout(bench: Bench) -> None:
    end = bench.run(raising(dramatiq.middleware.TimeLimitExceeded()))
    assert end.outcome is Outcome.TIMEOUT


def test_one_slow_run_holds_up_no_other(bench: Bench) -> None:
    slow = bench.hold(sleeps_long)
    bench.start(slow)
    assert bench.run(done_async).outcome is Outcome.COMPLETED
    assert bench.run(done).outcome is Outcome.COMPLETED


def test_hundreds_of_asynchronous_runs_wait_at_once_and_hold_no_thread(bench: Bench) -> None:
    async def waits(_payload: Any, _context: Any) -> None:
        await asyncio.sleep(0.2)

    before = threading.active_count()
    began = time.monotonic()
    for _ in range(300):
        bench.start(bench.hold(waits))
    assert threading.active_count() <= before
    eventually(lambda: len(bench.attempt_results) == 300)
    assert time.monotonic() - began < 3


# the context


def test_a_handler_knows_its_run(bench: Bench) -> None:
    def act(payload: Any, context: Any) -> Any:
        context.progress({"half": True})
        return [
            payload,
            context.id,
            context.attempt,
            context.request_id,
            context.traceparent,
            context.is_cancelled(),
        ]

    job = {"id": "j", "payload": {"x": 1}, "attempts": 3, "request_id": "r", "traceparent": "t"}
    end = bench.run(act, **job)
    assert end.result == [{"x": 1}, "j", 3, "r", "t", False]
    assert bench.progress == [{"half": True}]


@pytest.mark.parametrize("value", [object(), "x" * 100_000, 2**70, [math.nan]])
def test_progress_that_cannot_be_stored_is_the_handlers_error(bench: Bench, value: Any) -> None:
    def act(_payload: Any, context: Any) -> None:
        context.progress(value)

    end = bench.run(act)
    assert end.outcome is Outcome.ERROR
    assert "progress" in (end.message or "")
    assert bench.progress == []


def test_a_handler_knows_how_much_time_is_left(bench: Bench) -> None:
    end = bench.run(lambda _p, c: c.remaining_ms(), time_limit_ms=5_000)
    assert 4_000 < end.result <= 5_000


def test_a_handler_knows_the_time_by_the_servers_clock(bench: Bench) -> None:
    at = time.monotonic()
    bench.clock.learn(datetime(2031, 1, 1, tzinfo=UTC), at, at)
    end = bench.run(lambda _p, c: c.now().isoformat())
    assert end.result.startswith("2031-01-01T00:00:")


@both_kinds
def test_what_a_handler_logs_tells_its_job(bench: Bench, kind: Any) -> None:
    end = bench.run(kind(lambda _p, _c: structlog.contextvars.get_contextvars()), attempts=2)
    (held, _) = bench.attempt_results[0]
    assert (end.result["event_id"], end.result["attempt"]) == (held.job.id, 2)
    assert structlog.contextvars.get_contextvars() == {}


def test_a_failed_attempt_is_logged_with_its_cause(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        bench.run(raising(RuntimeError("boom")))
    (record,) = [r for r in caplog.records if r.exc_info]
    assert "boom" in str(record.exc_info)


# turns


def test_a_thread_runs_what_is_ready_before_it_goes(bench: Bench) -> None:
    held = [bench.hold(lambda _p, _c: None) for _ in range(200)]
    bench.start(held[0])
    assert [one for one, _ in bench.attempt_results] == held
    assert bench.threads.called == []


@pytest.mark.parametrize("seconds", [0.0, 0.15])
def test_a_turn_ends_after_a_while_where_other_messages_wait_for_a_thread(
    bench: Bench, seconds: float
) -> None:
    held = [bench.hold(lambda _p, _c: time.sleep(seconds)) for _ in range(60)]
    bench.threads.messages = bench.in_flight.turns.called + 1
    bench.start(held[0])
    ran = 1 if seconds else 50
    assert [one for one, _ in bench.attempt_results] == held[:ran]
    (called_for,) = bench.threads.called
    assert called_for in held[ran:]


def test_the_thread_that_is_called_in_its_place_runs_the_rest(bench: Bench) -> None:
    held = [bench.hold(lambda _p, _c: None) for _ in range(60)]
    bench.threads.messages = bench.in_flight.turns.called + 1
    bench.start(held[0])
    bench.start(bench.threads.called[0])
    assert {one.job.id for one, _ in bench.attempt_results} == {one.job.id for one in held}


def test_what_goes_wrong_outside_of_a_handler_costs_no_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("as asked")

    first, *others = [bench.hold(done) for _ in range(9)]
    with monkeypatch.context() as broken:
        broken.setattr(bench.runner._attempts, "_put", fail)
        with pytest.raises(RuntimeError):
            bench.start(first)
    assert len(bench.threads.called) == 1
    bench.start(others[0])
    assert [one for one, _ in bench.attempt_results] == others


def test_coroutines_go_to_the_loop_together_and_call_no_thread(bench: Bench) -> None:
    jobs = [bench.hold(done_async) for _ in range(20)]
    plain = bench.hold(done)
    bench.runner.hand_over([plain], [*jobs, plain])
    eventually(lambda: len(bench.attempt_results) == 20)
    assert bench.threads.called == [plain]


# jobs that don't start


def test_a_job_starts_once(bench: Bench) -> None:
    held = bench.hold(done)
    bench.start(held)
    bench.start(held)
    assert len(bench.attempt_results) == 1


def test_a_job_that_is_not_held_does_not_start(bench: Bench) -> None:
    bench.runner.run("unknown")
    assert bench.attempt_results == []


both_handlers = pytest.mark.parametrize("handler", [done, done_async])


@both_handlers
def test_with_a_lapsed_lease_nothing_starts_and_all_is_given_back(
    bench: Bench, handler: Any
) -> None:
    held = [bench.hold(handler) for _ in range(3)]
    bench.lease.renew(time.monotonic() - 61)
    bench.start(held[0])
    eventually(lambda: len(bench.attempt_results) == 3)
    assert [e.outcome for _, e in bench.attempt_results] == [Outcome.UNSTARTED] * 3


@both_handlers
def test_a_process_that_stops_starts_nothing(bench: Bench, handler: Any) -> None:
    held = bench.hold(handler)
    bench.runner.stopping.set()
    bench.start(held)
    eventually(lambda: bench.attempt_results)
    assert [e.outcome for _, e in bench.attempt_results] == [Outcome.UNSTARTED]


def test_a_turn_ends_with_the_process(bench: Bench) -> None:
    """What was not begun when it was told to stop goes back."""
    first = bench.hold(lambda _p, _c: bench.runner.stopping.set())
    others = [bench.hold(done) for _ in range(3)]
    bench.start(first)
    outcomes = {held: end.outcome for held, end in bench.attempt_results}
    assert outcomes.pop(first) is Outcome.COMPLETED
    assert outcomes == dict.fromkeys(others, Outcome.UNSTARTED)


@both_handlers
def test_a_job_that_a_client_cancelled_before_it_began_never_begins(
    bench: Bench, handler: Any
) -> None:
    end = bench.run(handler, cancel_requested=True)
    assert (end.outcome, end.started_at) == (Outcome.UNSTARTED, None)


def test_what_never_began_says_nothing_of_how_long_runs_take(bench: Bench) -> None:
    bench.run(done, cancel_requested=True)
    assert bench.in_flight.capacity.run_times.mean("email") == math.inf


# giving back


def test_what_runs_is_given_back_and_its_task_ends(bench: Bench) -> None:
    ended = threading.Event()

    async def waits(_payload: Any, _context: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    held = bench.hold(waits)
    bench.start(held)
    eventually(lambda: held.task is not None)
    assert bench.runner.give_back_running() == 1
    assert bench.attempt_results[0][1].outcome is Outcome.RELEASED
    assert ended.wait(5)


def test_what_was_given_back_before_its_task_began_never_begins(bench: Bench) -> None:
    ran: list[int] = []

    async def notes(_payload: Any, _context: Any) -> None:
        ran.append(1)

    blocked = threading.Event()
    bench.runner.loop.loop.call_soon_threadsafe(lambda: blocked.wait(5))
    held = bench.hold(notes)
    bench.start(held)
    bench.runner.give_back_waiting()
    blocked.set()
    assert bench.run(done_async).outcome is Outcome.COMPLETED
    assert ran == []


def test_a_stuck_run_ends_as_a_timeout(bench: Bench) -> None:
    held = bench.hold(done, time_limit_ms=500)
    bench.runner.stuck_runs.end(held)
    assert bench.attempt_results[0][1].outcome is Outcome.TIMEOUT


def test_a_blocked_loop_is_interrupted_once_somebody_is_beyond_the_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.worker.running.event_loop._BLOCKED_SECONDS", 0.2)

    async def spins(_payload: Any, _context: Any) -> None:
        while True:
            pass

    held = bench.hold(spins, time_limit_ms=100)
    bench.start(held)
    eventually(lambda: held.task is not None)

    def interrupted() -> bool:
        bench.runner.stuck_runs.interrupt_blocked_loop()
        return bool(bench.attempt_results)

    eventually(interrupted)
    assert bench.attempt_results[0][1].outcome is Outcome.TIMEOUT
    assert bench.run(done_async).outcome is Outcome.COMPLETED
