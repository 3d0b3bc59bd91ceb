from __future__ import annotations

import pytest

from service.concurrency import adaptive_interval as pace
from service.concurrency.adaptive_interval import AdaptiveInterval, AlertInterval
from service.errors import StoreUnavailable


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def look(pace: AdaptiveInterval, clock: Clock, seconds: float) -> None:
    """One that is due and takes so long."""
    assert pace.run_if_due(lambda: clock.advance(seconds))


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
        clock.advance(0.1)
        raise StoreUnavailable("no answer")

    with pytest.raises(StoreUnavailable):
        pace.run_if_due(fail)
    assert not pace.is_due


def test_a_look_that_is_not_due_is_not_taken(clock: Clock) -> None:
    pace = AdaptiveInterval()
    look(pace, clock, 1.0)
    looks: list[int] = []
    assert not pace.run_if_due(lambda: looks.append(1))
    assert looks == []


def test_who_is_in_a_hurry_need_not_wait(clock: Clock) -> None:
    pace = AdaptiveInterval()
    look(pace, clock, 1.0)
    pace.hurry()
    assert pace.is_due


def test_a_hurry_that_comes_during_a_look_is_for_the_next_one(clock: Clock) -> None:
    """The look may have passed by what it comes for."""
    pace = AdaptiveInterval()

    def hurried() -> None:
        clock.advance(1.0)
        pace.hurry()

    pace.run_if_due(hurried)
    assert pace.is_due
    look(pace, clock, 1.0)
    assert not pace.is_due


def find(interval: AlertInterval, *, something: bool = False) -> bool:
    """Whether a look was taken."""
    return interval.run_if_due(lambda: something)


def test_looks_come_often_for_a_while_after_the_start_and_then_now_and_then(clock: Clock) -> None:
    interval = AlertInterval(alert_seconds=30, calm_seconds=10)
    assert find(interval)
    assert find(interval)
    clock.advance(31)
    assert find(interval)
    assert not find(interval)
    clock.advance(11)
    assert find(interval)


def test_an_alert_makes_looks_due_at_once_and_for_a_while(clock: Clock) -> None:
    interval = AlertInterval(alert_seconds=30, calm_seconds=10)
    clock.advance(31)
    assert find(interval)
    assert not interval.is_due
    interval.alert()
    assert find(interval)
    clock.advance(29)
    assert find(interval)


def test_a_look_that_finds_something_is_an_alert(clock: Clock) -> None:
    interval = AlertInterval(alert_seconds=30, calm_seconds=10)
    clock.advance(31)
    assert find(interval, something=True)
    assert find(interval)


def test_an_alert_during_a_look_is_not_lost(clock: Clock) -> None:
    """It comes from another thread; the look may have passed by what it is for."""
    interval = AlertInterval(alert_seconds=30, calm_seconds=10)
    clock.advance(31)

    def nothing() -> bool:
        interval.alert()
        return False

    assert interval.run_if_due(nothing)
    assert interval.is_due


def test_after_a_look_that_fails_the_next_one_is_due(clock: Clock) -> None:
    interval = AlertInterval(alert_seconds=30, calm_seconds=10)
    clock.advance(31)

    def fail() -> bool:
        raise StoreUnavailable("no answer")

    with pytest.raises(StoreUnavailable):
        interval.run_if_due(fail)
    assert interval.is_due
