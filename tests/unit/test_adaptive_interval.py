from __future__ import annotations

import pytest

from service.concurrency import adaptive_interval as pace
from service.concurrency.adaptive_interval import AdaptiveInterval, Vigil
from service.errors import StoreUnavailable


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def look(pace: AdaptiveInterval, clock: Clock, seconds: float) -> None:
    with pace.look():
        clock.now += seconds


def test_a_cheap_look_is_due_again_at_once(clock: Clock) -> None:
    pace = AdaptiveInterval()
    look(pace, clock, 0.005)
    assert pace.is_due


def test_a_look_that_takes_long_is_due_after_many_times_as_long(clock: Clock) -> None:
    pace = AdaptiveInterval()
    look(pace, clock, 0.02)
    assert not pace.is_due
    clock.now += 4.9
    assert not pace.is_due
    clock.now += 0.2
    assert pace.is_due


@pytest.mark.parametrize("most_seconds", [2.0, 10.0])
def test_no_look_is_put_off_for_long(clock: Clock, most_seconds: float) -> None:
    pace = AdaptiveInterval(most_seconds)
    look(pace, clock, 60.0)
    clock.now += most_seconds - 0.1
    assert not pace.is_due
    clock.now += 0.2
    assert pace.is_due


def test_a_look_that_fails_is_timed_as_well(clock: Clock) -> None:
    pace = AdaptiveInterval()

    def fail() -> None:
        with pace.look():
            clock.now += 0.1
            raise StoreUnavailable("no answer")

    with pytest.raises(StoreUnavailable):
        fail()
    assert not pace.is_due


def test_who_is_in_a_hurry_need_not_wait(clock: Clock) -> None:
    pace = AdaptiveInterval()
    look(pace, clock, 1.0)
    pace.hurry()
    assert pace.is_due


def test_a_hurry_that_comes_during_a_look_is_for_the_next_one(clock: Clock) -> None:
    """The look may have passed by what it comes for."""
    pace = AdaptiveInterval()
    with pace.look():
        clock.now += 1.0
        pace.hurry()
    assert pace.is_due
    look(pace, clock, 1.0)
    assert not pace.is_due


def test_a_vigil_is_awake_for_a_while_and_then_looks_now_and_then(clock: Clock) -> None:
    vigil = Vigil(awake_seconds=30, calm_seconds=10)
    vigil.looked()
    assert vigil.is_due
    clock.now += 31
    vigil.looked()
    assert not vigil.is_due
    clock.now += 11
    assert vigil.is_due


def test_a_call_wakes_a_vigil_at_once(clock: Clock) -> None:
    vigil = Vigil(awake_seconds=30, calm_seconds=10)
    clock.now += 31
    vigil.looked()
    vigil.call()
    assert vigil.is_due
    vigil.looked()
    assert vigil.is_due
