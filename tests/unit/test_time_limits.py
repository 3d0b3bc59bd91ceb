"""Time limits strike nowhere but where the run allows it: tried at every single bytecode."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import dramatiq
import pytest
import structlog
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import TimeLimitExceeded

from service.clock import ServerClock
from service.concurrency.delay_queue import DelayQueue
from service.job import Outcome
from service.queue.messages import hint_message
from service.worker.finishing.committer import Committer
from service.worker.fleet.lease import Lease
from service.worker.holding.capacity import Capacity
from service.worker.holding.in_flight import InFlight
from service.worker.holding.isolation import Isolation
from service.worker.running import time_limits as interrupts
from service.worker.running.runner import Runner
from service.worker.running.time_limits import HandlerTimeLimit, Interruptible, TimeLimits
from tests.factories import make_held, make_hint, make_type

LATE = float("inf")


class Striker:
    """Traces this thread; at the bytecode number `begin` the permit is asked for, and so many
    bytecodes later, if it was there, the exception arrives."""

    def __init__(self, limits: TimeLimits, begin: int, pause: int) -> None:
        self._limits, self._begin, self._pause = limits, begin, pause
        self.count = 0
        self.allowed: list[int] = []
        """The numbers of the bytecodes at which the permit was there."""
        self._taken: list[Interruptible] = []
        self.struck = False

    def __enter__(self) -> Striker:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: Any, event: str, _arg: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.struck:
            self._step()
        return self._trace

    def _step(self) -> None:
        self.count += 1
        if self._limits._permits:
            self.allowed.append(self.count)
        if self.count == self._begin:
            self._taken = [one for one in self._limits._permits.copy() if one._taken()]
        if self._taken and self.count >= self._begin + self._pause:
            self.struck = True
            self._taken[0]._has_come = True
            raise TimeLimitExceeded


class NoThreads:
    """Dramatiq's, where none is to be called: a run that takes a tenth of a second, as one does
    that is traced on a busy machine, asks what waits for them."""

    messages = 0

    def call(self, _jobs: Iterable[Any]) -> None:
        """Nobody comes."""


class Bench:
    """A runner that hands over to a committer, which doesn't run."""

    def __init__(self, handler: Callable[..., Any], notes: DelayQueue[Any]) -> None:
        self.notes = notes
        self.in_flight = InFlight(Capacity(8, 100), Isolation())
        self.committer = Committer(None, None, None, self.in_flight, None)  # type: ignore[arg-type]
        lease = Lease(600)
        lease.renew(time.monotonic())
        self.limits = TimeLimits()  # whose thread doesn't run: nobody else looks
        self.runner = Runner(
            self.in_flight,
            lease,
            ServerClock(),
            self.committer.put,
            lambda _held, value: self.notes.add(value, 0.0),
            limits=self.limits,
            threads=NoThreads(),  # type: ignore[arg-type]
        )
        self.held = make_held(make_type(handler=handler))
        self.in_flight.add([self.held])

    def check(self) -> Outcome:
        """That nothing is left behind; how the run ended."""
        for condition in (
            self.in_flight._lock,
            self.notes._changed,
            self.committer._idle._cond,  # type: ignore[attr-defined]
            self.committer._wake._cond,  # type: ignore[attr-defined]
        ):
            assert is_free(condition)
        assert structlog.contextvars.get_contextvars() == {}
        assert self.limits._permits == {}
        ((held, attempt_result),) = self.committer._ended
        assert held is self.held
        assert not held.has_place
        return attempt_result.outcome


def is_free(condition: Any) -> bool:
    """Whether another thread can take its lock."""
    got: list[bool] = []

    def take() -> None:
        got.append(condition.acquire(timeout=1))
        if got[0]:
            condition.release()

    other = threading.Thread(target=take)
    other.start()
    other.join()
    return got[0]


def notes(_payload: Any, context: Any) -> str:
    context.progress({"half": True})
    return "done"


def careless(_payload: Any, context: Any) -> str:
    with suppress(BaseException):
        context.progress({"half": True})
    return "done"


@pytest.fixture
def later() -> Iterator[DelayQueue[Any]]:
    later: DelayQueue[Any] = DelayQueue(lambda _items: None)
    later.add(None, 0)  # which starts its thread
    yield later
    later.stop()


def struck_run(
    handler: Callable[..., Any], later: DelayQueue[Any], begin: int, pause: int
) -> tuple[Bench, Striker]:
    bench = Bench(handler, later)
    striker = Striker(bench.limits, begin, pause)
    with striker:
        bench.runner.run(bench.held.job.id)
    return bench, striker


@pytest.mark.parametrize("pause", [0, 1, 7, 60])
@pytest.mark.parametrize("handler", [notes, careless])
def test_a_run_that_is_struck_anywhere_ends_once_and_leaves_no_lock_held(
    monkeypatch: pytest.MonkeyPatch, later: DelayQueue[Any], handler: Callable[..., Any], pause: int
) -> None:
    monkeypatch.setattr(interrupts, "raise_thread_exception", lambda *_: None)
    monkeypatch.setattr(interrupts, "_MOMENT_SECONDS", 0)
    for _ in range(3):
        _, calm = struck_run(handler, later, 0, 0)
    outcomes = []
    for begin in range(min(calm.allowed) - 50, max(calm.allowed) + 50):
        bench, striker = struck_run(handler, later, begin, pause)
        outcomes.append(outcome := bench.check())
        if handler is notes:
            assert (outcome is Outcome.TIMEOUT) == striker.struck
    assert outcomes.count(Outcome.TIMEOUT) > 20
    assert outcomes[0] is outcomes[-1] is Outcome.COMPLETED


# the real thing


def make_broker(middleware: HandlerTimeLimit) -> StubBroker:
    broker = StubBroker(middleware=[middleware])
    dramatiq.actor(broker=broker, actor_name="slow")(lambda _id: None)
    return broker


def spin(limit: Interruptible, seconds: float = 5.0) -> None:
    """What a handler may do, on the thread of the run."""
    end = time.monotonic() + seconds
    limit.allow()
    try:
        while time.monotonic() < end:
            pass
    finally:
        limit.refuse()


def test_a_thread_is_interrupted_after_the_deadline_of_its_message() -> None:
    """As Dramatiq's own middleware asks for it."""
    middleware = HandlerTimeLimit(TimeLimits())
    broker = make_broker(middleware)
    message = hint_message(make_hint(type="slow"))
    message.options["time_limit"] = 100
    middleware.after_process_boot(broker)
    middleware.before_process_message(broker, message)
    limit = middleware.limits.here()
    began = time.monotonic()
    with pytest.raises(TimeLimitExceeded):
        spin(limit)
    assert 0.1 <= time.monotonic() - began < 3
    middleware.after_process_message(broker, message)
    assert middleware.limits.here().deadline == float("inf")


def test_a_thread_that_allows_nothing_is_left_alone() -> None:
    limits = TimeLimits()
    limit = limits.here(0.0)
    limits.look(LATE)
    assert not limit.interrupt()
    limit.allow()
    limit.refuse()
    assert not limit.interrupt()


def test_what_is_shielded_is_not_cut_off_and_what_follows_is() -> None:
    limits = TimeLimits()
    limits.start()
    limit = limits.here(0.0)
    done = []

    def act() -> None:
        limits.look(LATE)
        done.append(1)

    limit.allow()
    limit.shield(act)
    assert done == [1]
    with pytest.raises(TimeLimitExceeded):
        spin(limit)


def test_a_helping_thread_of_the_handler_changes_nothing_for_the_run() -> None:
    limits = TimeLimits()
    limit = limits.here(LATE)
    limit.allow()
    helper = threading.Thread(target=limit.shield, args=(lambda: None,))
    helper.start()
    helper.join()
    limit.refuse()
    assert not limit.interrupt()


def test_runs_that_end_just_when_they_are_late_are_struck_themselves_or_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watching thread and the run race for the permit, again and again."""
    limits, stopped = TimeLimits(), threading.Event()
    monkeypatch.setattr("service.worker.running.time_limits._log.warning", lambda *_: None)

    def watch() -> None:
        while not stopped.is_set():
            limits.look(LATE)

    watcher = threading.Thread(target=watch)
    usual, struck, runs = sys.getswitchinterval(), 0, 0
    sys.setswitchinterval(1e-6)
    watcher.start()
    try:
        end = time.monotonic() + 50  # two seconds are enough where nothing else runs
        while (struck < 100 or runs < 3_000) and time.monotonic() < end:
            runs += 1
            limit = limits.here(0.0)
            try:
                try:
                    limit.allow()
                finally:
                    limit.refuse()
            except TimeLimitExceeded:
                struck += 1
            sum(range(50))  # where one that comes too late would strike
    finally:
        stopped.set()
        watcher.join()
        sys.setswitchinterval(usual)
    assert struck >= 100
    assert runs > struck
