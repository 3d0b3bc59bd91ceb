from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from service.concurrency.circuit_breaker import CircuitBreaker
from service.errors import StoreLate, StoreRefused, StoreUnavailable, StoreUnreachable
from tests.factories import eventually


def test_it_is_open_until_the_probe_succeeds() -> None:
    is_down = True

    def probe() -> None:
        if is_down:
            raise OSError("still down")

    breaker = CircuitBreaker("a server", probe, every_seconds=0.01)
    assert not breaker.is_open
    breaker.trip(OSError("gone"))
    assert breaker.is_open
    is_down = False
    eventually(lambda: not breaker.is_open)


def test_it_opens_again() -> None:
    breaker = CircuitBreaker("a server", lambda: None, every_seconds=0.01)
    for _ in range(3):
        breaker.trip(OSError("gone"))
        breaker.trip(OSError("gone, says another"))
        assert breaker.is_open
        eventually(lambda: not breaker.is_open)


def test_once_stopped_it_stays_as_it_is() -> None:
    breaker = CircuitBreaker("a server", lambda: None, every_seconds=0.01)
    breaker.stop()
    breaker.trip(OSError("gone"))
    assert not breaker.is_open


def never() -> None:
    raise OSError("down")


def test_a_server_that_cannot_be_reached_opens_it_at_once() -> None:
    breaker = CircuitBreaker("a server", never, every_seconds=0.01)
    breaker.note(StoreUnreachable("connection refused"))
    assert breaker.is_open
    breaker.stop()


@pytest.mark.parametrize("error", [StoreLate("slow"), StoreUnavailable("refused")])
def test_a_slow_question_to_a_server_that_is_well_does_not_open_it(error: StoreUnavailable) -> None:
    breaker = CircuitBreaker("a server", never, check=lambda: None)
    breaker.note(error)
    eventually(lambda: not breaker._in_doubt)
    assert not breaker.is_open


def test_a_late_answer_opens_it_where_the_server_does_not_answer_at_all() -> None:
    breaker = CircuitBreaker("a server", never, every_seconds=0.01, check=never)
    breaker.note(StoreLate("no answer"))
    eventually(lambda: breaker.is_open)
    breaker.stop()


def test_of_many_late_answers_one_asks() -> None:
    asked, may = list[int](), threading.Event()

    def check() -> None:
        asked.append(1)
        may.wait(5)

    breaker = CircuitBreaker("a server", never, check=check)
    for _ in range(20):
        breaker.note(StoreLate("slow"))
    eventually(lambda: asked)
    may.set()
    assert asked == [1]


# what it says


def probing(*errors: Exception, tries: int = 3) -> Callable[[], None]:
    """A probe that fails with each of these, so many times, before it succeeds."""
    left = [error for error in errors for _ in range(tries)]

    def probe() -> None:
        if left:
            raise left.pop(0)

    return probe


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_what_a_first_probe_finds_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    probe = probing(StoreRefused("no such user"))
    breaker = CircuitBreaker("a server", probe, every_seconds=0.01)
    assert breaker.begin(5)
    assert said(caplog) == ["a server is unavailable: no such user"]


def test_another_kind_of_failure_is_said_too_and_none_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away, refused = StoreUnavailable("no answer"), StoreRefused("no such user")
    breaker = CircuitBreaker("a server", probing(away, refused, away), every_seconds=0.01)
    breaker.trip(away)
    eventually(lambda: not breaker.is_open)
    texts = ["no answer", "no such user"]
    assert said(caplog) == [f"a server is unavailable: {text}" for text in texts]


def test_the_next_outage_is_said_again(caplog: pytest.LogCaptureFixture) -> None:
    breaker = CircuitBreaker("a server", lambda: None, every_seconds=0.01)
    for _ in range(2):
        breaker.trip(StoreUnavailable("no answer"))
        eventually(lambda: not breaker.is_open)
    assert said(caplog) == ["a server is unavailable: no answer"] * 2


def test_a_guarded_question_is_not_asked_while_it_is_open() -> None:
    breaker = CircuitBreaker("a server", never, every_seconds=0.01)
    breaker.trip(OSError("gone"))
    asked = []
    with pytest.raises(StoreUnavailable), breaker.guard():
        asked.append(True)
    assert not asked
    breaker.stop()


def test_a_guarded_question_that_fails_is_noted_and_raises() -> None:
    breaker = CircuitBreaker("a server", never, every_seconds=0.01)
    with pytest.raises(StoreUnreachable), breaker.guard():
        raise StoreUnreachable("connection refused")
    assert breaker.is_open
    breaker.stop()
