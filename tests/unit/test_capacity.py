"""How many more jobs a process should hold, and when a claim pays."""

from __future__ import annotations

import time
from typing import Any

import pytest

from service.worker.holding.capacity import Capacity
from service.worker.holding.in_flight import InFlight
from service.worker.holding.isolation import Isolation
from service.worker.holding.job import InFlightJob
from tests.factories import done_async, make_held, make_type

SLOW = make_type("slow")
FAST = make_type("fast")
WAITS = make_type("waits", done_async)
WAITS_TOO = make_type("waits_too", done_async)


def make_in_flight(
    threads: int = 4, places: int = 10, max_bytes: int = 134_217_728, types: Any = ()
) -> InFlight:
    return InFlight(Capacity(threads, places, max_bytes, types), Isolation())


@pytest.fixture
def in_flight() -> InFlight:
    return make_in_flight()


def room(in_flight: InFlight, event_type: Any = SLOW) -> int:
    return in_flight.capacity.room(event_type)


def hold(in_flight: InFlight, count: int, event_type: Any = SLOW, **job: Any) -> list[InFlightJob]:
    held = [make_held(event_type, **job) for _ in range(count)]
    in_flight.add(held)
    if event_type.is_async:
        in_flight.start(held)
    return held


def end(in_flight: InFlight, held: InFlightJob, seconds: float = 0.0) -> None:
    """Its run ends, after so long."""
    held.started = time.monotonic() - seconds
    in_flight.free_place(held)
    in_flight.remove([held])


def run(in_flight: InFlight, count: int, seconds: float, event_type: Any = SLOW) -> None:
    """So many runs, each as long as said, one after the other."""
    for held in hold(in_flight, count, event_type):
        if not event_type.is_async:
            assert in_flight.turns.begin(held.job.id) is held
        end(in_flight, held, seconds)
        if not event_type.is_async:
            in_flight.turns.end()


def pays(in_flight: InFlight, *, is_async: bool = False, after: float = 60.0) -> bool:
    return in_flight.capacity.is_worth_a_claim(is_async=is_async, since_claim_seconds=after)


# plain functions


def test_with_jobs_of_unknown_length_it_holds_no_more_than_it_has_threads(
    in_flight: InFlight,
) -> None:
    assert room(in_flight) == 4
    hold(in_flight, 4)
    assert room(in_flight) == 0


def test_with_short_jobs_it_holds_hundreds(in_flight: InFlight) -> None:
    run(in_flight, 40, 0.0002)
    assert 100 < room(in_flight) <= 504


@pytest.mark.parametrize(
    ("seconds", "ahead"), [(0.001, 200), (0.005, 40), (0.02, 10), (0.1, 2), (0.2, 1), (0.3, 0)]
)
def test_as_much_is_held_ahead_as_all_threads_do_in_some_hundredths_of_a_second(
    seconds: float, ahead: int
) -> None:
    in_flight = make_in_flight(threads=8)
    run(in_flight, 100, seconds)
    assert ahead - max(1, ahead // 5) <= room(in_flight) - 8 <= ahead


def test_with_jobs_that_became_longer_it_soon_holds_few_again(in_flight: InFlight) -> None:
    run(in_flight, 40, 0.0002)
    run(in_flight, 40, 1.0)
    assert room(in_flight) == 4


def test_where_nothing_ends_nothing_is_held_ahead(
    in_flight: InFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(in_flight, 40, 0.001)
    assert room(in_flight) > 4
    later = time.monotonic() + 1
    monkeypatch.setattr("service.worker.holding.run_times.time.monotonic", lambda: later)
    assert room(in_flight) == 4


def test_what_is_held_ahead_of_one_type_counts_for_all(in_flight: InFlight) -> None:
    run(in_flight, 20, 0.001, FAST)
    run(in_flight, 20, 0.02, SLOW)
    before = room(in_flight, FAST)
    hold(in_flight, room(in_flight, SLOW), SLOW)
    assert room(in_flight, FAST) < before / 4


def test_where_claims_take_long_more_is_held_ahead(in_flight: InFlight) -> None:
    run(in_flight, 40, 0.005)
    before = room(in_flight)
    for _ in range(100):
        in_flight.capacity.claim_took(0.02)
    assert room(in_flight) > 2 * before


def test_a_claim_waits_until_half_of_what_is_ahead_has_gone(in_flight: InFlight) -> None:
    run(in_flight, 100, 0.002)
    held = hold(in_flight, room(in_flight))
    for one in held[:4]:
        in_flight.turns.begin(one.job.id)
    ahead = len(held) - 4
    mark = in_flight.capacity.worth_of_ready()
    assert ahead / 2 - 2 <= mark <= ahead / 2
    for one in held[4 : len(held) - mark]:
        assert not pays(in_flight)
        end(in_flight, one)
    assert pays(in_flight)


def test_long_jobs_are_claimed_for_each_thread_that_becomes_idle(in_flight: InFlight) -> None:
    run(in_flight, 10, 1.0)
    held = hold(in_flight, 4)
    assert not (pays(in_flight) and room(in_flight))
    end(in_flight, held[0])
    assert pays(in_flight)
    assert room(in_flight) == 1


def test_a_thread_for_which_there_is_nothing_is_a_reason_to_claim(in_flight: InFlight) -> None:
    run(in_flight, 100, 0.001)
    hold(in_flight, 3)
    assert pays(in_flight)


def test_types_that_wait_together_share_what_there_is(in_flight: InFlight) -> None:
    run(in_flight, 100, 0.001, FAST)
    run(in_flight, 100, 0.001, SLOW)
    alone = room(in_flight, FAST)
    shared = in_flight.capacity.allot([FAST, SLOW])
    assert sum(shared.values()) <= alone + 1
    assert abs(shared["fast"] - shared["slow"]) <= 2


def test_a_hundred_types_get_no_more_than_there_are_threads() -> None:
    in_flight = make_in_flight(threads=8)
    types = [make_type(f"q{n}") for n in range(100)]
    given = in_flight.capacity.allot(types)
    assert sorted(given.values(), reverse=True) == [1] * 8 + [0] * 92


def test_long_jobs_get_in_line_behind_short_ones_that_leave_no_thread_idle(
    in_flight: InFlight,
) -> None:
    run(in_flight, 20, 1.0, SLOW)
    run(in_flight, 100, 0.001, FAST)
    fast = hold(in_flight, 10, FAST)
    for one in fast[:4]:
        in_flight.turns.begin(one.job.id)
    assert room(in_flight, SLOW) == 1
    assert in_flight.capacity.allot([SLOW, FAST])["fast"] > 0


def test_long_jobs_get_in_no_line_behind_each_other(in_flight: InFlight) -> None:
    run(in_flight, 20, 1.0, SLOW)
    run(in_flight, 20, 1.0, FAST)
    for one in [*hold(in_flight, 2, SLOW), *hold(in_flight, 2, FAST)]:
        in_flight.turns.begin(one.job.id)
    assert in_flight.capacity.allot([SLOW, FAST]) == {"slow": 0, "fast": 0}


# coroutines


def test_coroutines_are_bounded_by_the_setting_and_take_no_threads_room(
    in_flight: InFlight,
) -> None:
    hold(in_flight, 10, WAITS)
    assert room(in_flight, WAITS) == 0
    assert room(in_flight, SLOW) == 4


def test_room_comes_back_with_each_end(in_flight: InFlight) -> None:
    held = hold(in_flight, 10, WAITS)
    in_flight.remove(held[:3])
    assert room(in_flight, WAITS) == 3
    assert len(in_flight) == 7


def test_a_claim_of_coroutines_waits_for_an_eighth_of_the_places_or_some_milliseconds() -> None:
    in_flight = make_in_flight(places=80)
    held = hold(in_flight, 80, WAITS)
    assert in_flight.capacity.worth_of_places() == 1
    end(in_flight, held[0])
    assert not pays(in_flight, is_async=True, after=0.001)
    assert pays(in_flight, is_async=True, after=1.0)
    assert in_flight.capacity.worth_of_places() == 10
    for one in held[1:10]:
        end(in_flight, one)
    assert pays(in_flight, is_async=True, after=0.001)


def test_coroutines_of_several_types_share_the_places(in_flight: InFlight) -> None:
    assert in_flight.capacity.allot([WAITS, WAITS_TOO]) == {"waits": 5, "waits_too": 5}


def test_outcomes_that_are_not_written_fast_enough_stop_the_claims() -> None:
    in_flight = make_in_flight(places=10_000)
    held = hold(in_flight, 4_000, WAITS)
    for one in held:
        in_flight.free_place(one)
    assert (room(in_flight, WAITS), in_flight.capacity.waits_for_writes) == (0, True)
    in_flight.remove(held[:100])
    assert (room(in_flight, WAITS), in_flight.capacity.waits_for_writes) == (100, False)


# bytes


@pytest.fixture
def roomy() -> InFlight:
    return make_in_flight(places=2_000, max_bytes=1_000_000)


def test_large_jobs_leave_room_for_as_many_as_have_the_bytes(roomy: InFlight) -> None:
    assert room(roomy, WAITS) == 2_000
    hold(roomy, 4, WAITS, size=100_000)
    assert room(roomy, WAITS) == 6
    hold(roomy, 6, WAITS, size=100_000)
    assert (room(roomy, WAITS), roomy.capacity.room_bytes) == (0, 0)
    assert roomy.capacity.waits_for_writes


def test_types_share_the_bytes_too(roomy: InFlight) -> None:
    hold(roomy, 4, WAITS, size=100_000)
    assert sum(roomy.capacity.allot([WAITS, WAITS_TOO, SLOW]).values()) == 6


def test_one_job_finds_room_however_large_those_before_were(roomy: InFlight) -> None:
    roomy.remove(hold(roomy, 1, WAITS, size=5_000_000))
    assert (room(roomy, WAITS), roomy.capacity.room_bytes) == (1, 1_000_000)


def test_after_large_jobs_small_ones_soon_come_by_the_hundred_again(roomy: InFlight) -> None:
    roomy.remove(hold(roomy, 10, WAITS, size=100_000))
    for _ in range(40):
        roomy.remove(hold(roomy, room(roomy, WAITS), WAITS, size=400))
    assert room(roomy, WAITS) == 2_000


def test_a_result_takes_bytes_until_it_is_written(roomy: InFlight) -> None:
    (held,) = hold(roomy, 1, WAITS, size=1_000)
    roomy.free_place(held, 499_500)
    roomy.free_place(held, 499_500)  # of several attempt results the first one counts
    assert (room(roomy, WAITS), roomy.capacity.room_bytes) == (0, 0)
    roomy.remove([held])
    roomy.remove([held])
    roomy.free_place(held, 499_500)
    assert roomy.capacity.room_bytes == 1_000_000


# one type beside others


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many seconds from now it is."""
    shift, clock = [0.0], time.monotonic
    monkeypatch.setattr(
        "service.worker.holding.capacity.time.monotonic", lambda: clock() + shift[0]
    )
    return shift


def test_a_type_may_have_all_threads_where_there_is_nobody_else(in_flight: InFlight) -> None:
    run(in_flight, 4, 1.0, SLOW)
    assert room(in_flight, SLOW) == 4


def test_a_type_of_long_runs_leaves_a_thread_to_another_that_came_lately(
    in_flight: InFlight, at: list[float]
) -> None:
    run(in_flight, 4, 1.0, SLOW)
    run(in_flight, 4, 0.001, FAST)
    assert room(in_flight, SLOW) == 3
    held = hold(in_flight, 3, SLOW)
    for one in held:
        in_flight.turns.begin(one.job.id)
    assert room(in_flight, SLOW) == 0
    assert room(in_flight, FAST) >= 1
    at[0] = 601.0
    assert room(in_flight, SLOW) == 1


@pytest.mark.parametrize(("seconds", "most"), [(0.2, 4), (0.5, 3)])
def test_a_type_of_very_long_runs_leaves_a_thread_to_any_other(seconds: float, most: int) -> None:
    in_flight = make_in_flight(types=[SLOW, FAST, WAITS])
    run(in_flight, 4, seconds, SLOW)
    assert room(in_flight, SLOW) == most


def test_a_type_that_never_ran_is_taken_for_one_of_very_long_runs() -> None:
    in_flight = make_in_flight(types=[SLOW, FAST, WAITS, WAITS_TOO])
    assert (room(in_flight, SLOW), room(in_flight, WAITS)) == (3, 9)


def test_where_there_is_no_other_type_of_its_kind_nothing_is_left() -> None:
    in_flight = make_in_flight(types=[SLOW, WAITS])
    run(in_flight, 4, 0.5, SLOW)
    run(in_flight, 4, 0.5, WAITS)
    assert (room(in_flight, SLOW), room(in_flight, WAITS)) == (4, 10)


def test_a_type_of_short_runs_leaves_nothing(in_flight: InFlight) -> None:
    run(in_flight, 4, 1.0, SLOW)
    run(in_flight, 100, 0.002, FAST)
    assert room(in_flight, FAST) > 4


def test_even_one_thread_serves_every_type() -> None:
    in_flight = make_in_flight(threads=1)
    run(in_flight, 4, 1.0, SLOW)
    run(in_flight, 4, 1.0, FAST)
    assert (room(in_flight, SLOW), room(in_flight, FAST)) == (1, 1)


def test_of_several_types_of_long_coroutines_one_leaves_a_tenth_of_the_places(
    in_flight: InFlight,
) -> None:
    run(in_flight, 1, 1.0, WAITS)
    run(in_flight, 1, 1.0, WAITS_TOO)
    assert room(in_flight, WAITS) == 9
    hold(in_flight, 9, WAITS)
    assert (room(in_flight, WAITS), room(in_flight, WAITS_TOO)) == (0, 1)
