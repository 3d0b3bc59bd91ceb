"""What a process holds: in, started, ended, out; and which thread is called for what."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from service.worker.holding.capacity import Capacity
from service.worker.holding.in_flight import InFlight
from service.worker.holding.isolation import Isolation
from service.worker.holding.job import InFlightJob, Stage
from tests.factories import done, done_async, make_held, make_type

SLOW = make_type("slow")
WAITS = make_type("waits", done_async)


def make_in_flight(threads: int = 4, places: int = 10) -> InFlight:
    return InFlight(Capacity(threads, places), Isolation())


@pytest.fixture
def in_flight() -> InFlight:
    return make_in_flight()


def hold(in_flight: InFlight, count: int, event_type: Any = SLOW, **job: Any) -> list[InFlightJob]:
    held = [make_held(event_type, **job) for _ in range(count)]
    in_flight.add(held)
    return held


def begin(in_flight: InFlight, held: InFlightJob) -> InFlightJob | None:
    """Starts it, on a thread or on the loop."""
    if held.is_async:
        started = in_flight.start([held])
        return started[0] if started else None
    return in_flight.turns.begin(held.job.id)


both_kinds = pytest.mark.parametrize("event_type", [SLOW, WAITS], ids=["thread", "loop"])


# the way of one job


@both_kinds
def test_a_job_starts_once(in_flight: InFlight, event_type: Any) -> None:
    (held,) = hold(in_flight, 1, event_type)
    assert begin(in_flight, held) is held
    assert begin(in_flight, held) is None
    assert in_flight.running() == [held]


@both_kinds
def test_a_job_that_is_not_held_does_not_start(in_flight: InFlight, event_type: Any) -> None:
    assert begin(in_flight, make_held(event_type)) is None


@both_kinds
def test_a_started_job_has_a_deadline(in_flight: InFlight, event_type: Any) -> None:
    (held,) = hold(in_flight, 1, event_type, time_limit_ms=5_000)
    begin(in_flight, held)
    assert held.deadline - time.monotonic() == pytest.approx(5, abs=0.1)


@both_kinds
def test_what_was_given_back_never_starts(in_flight: InFlight, event_type: Any) -> None:
    running, waiting = hold(in_flight, 2, event_type)
    begin(in_flight, running)
    assert in_flight.drop_ready() == [waiting]
    assert in_flight.drop_ready() == []
    assert begin(in_flight, waiting) is None
    assert waiting.stage is Stage.DROPPED


def test_a_settled_job_runs_no_more(in_flight: InFlight) -> None:
    (held,) = hold(in_flight, 1)
    begin(in_flight, held)
    held.settled = True
    assert in_flight.running() == []


@both_kinds
def test_a_job_claimed_again_while_its_former_run_goes_on_is_held_twice(
    in_flight: InFlight, event_type: Any
) -> None:
    (first,) = hold(in_flight, 1, event_type, id="a")
    assert begin(in_flight, first) is first
    (second,) = hold(in_flight, 1, event_type, id="a", claim="second")
    assert in_flight.running() == [first]
    assert begin(in_flight, second) is second
    assert in_flight.running() == [first, second]
    in_flight.remove([first])
    assert in_flight.running() == [second]
    assert [in_flight.holds("a", one.job.claim) for one in (first, second)] == [False, True]
    in_flight.remove([second])
    assert len(in_flight) == 0
    assert in_flight.capacity.room(event_type) == (10 if event_type.is_async else 4)


@both_kinds
def test_a_job_claimed_again_before_it_began_is_held_once(
    in_flight: InFlight, event_type: Any
) -> None:
    (first,) = hold(in_flight, 1, event_type, id="a")
    (second,) = hold(in_flight, 1, event_type, id="a", claim="second")
    assert first.stage is Stage.DROPPED
    assert begin(in_flight, second) is second
    in_flight.remove([first, second])
    assert len(in_flight) == 0
    assert in_flight.capacity.room(event_type) == (10 if event_type.is_async else 4)


@both_kinds
def test_what_is_removed_before_it_began_never_begins(in_flight: InFlight, event_type: Any) -> None:
    (held,) = hold(in_flight, 1, event_type)
    in_flight.remove([held])
    assert begin(in_flight, held) is None
    assert in_flight.capacity.ready_seconds() == 0


def test_it_is_told_when_nothing_is_held_any_more(in_flight: InFlight) -> None:
    assert in_flight.wait_until_empty(0)
    held = hold(in_flight, 3)
    assert not in_flight.wait_until_empty(0.01)
    threading.Timer(0.05, in_flight.remove, [held]).start()
    assert in_flight.wait_until_empty(5)


def test_a_wait_ends_where_the_process_stops(in_flight: InFlight) -> None:
    hold(in_flight, 1)
    stopping = threading.Event()
    threading.Timer(0.05, stopping.set).start()
    began = time.monotonic()
    assert not in_flight.wait_until_empty(30, unless=stopping)
    assert time.monotonic() - began < 10


# turns


def test_as_many_threads_are_called_as_there_are_jobs_for_idle_ones() -> None:
    in_flight = make_in_flight(threads=4)
    first = [make_held(SLOW) for _ in range(3)]
    assert in_flight.add(first) == first
    more = [make_held(SLOW) for _ in range(3)]
    assert in_flight.add(more) == more[:1]
    assert in_flight.add([make_held(SLOW)]) == []
    assert in_flight.turns.called == 4


def test_nobody_is_called_for_a_coroutine(in_flight: InFlight) -> None:
    assert in_flight.add([make_held(WAITS)]) == []


def test_a_turn_begins_with_the_job_that_the_thread_was_called_for_and_goes_on_in_order(
    in_flight: InFlight,
) -> None:
    a, b, c = hold(in_flight, 3)
    assert in_flight.turns.begin(b.job.id) is b
    assert in_flight.turns.next() is a
    assert in_flight.turns.next() is c
    assert in_flight.turns.next() is None


def test_where_another_thread_took_its_job_a_called_one_gets_the_next(
    in_flight: InFlight,
) -> None:
    a, b, c = hold(in_flight, 3)
    assert in_flight.turns.begin(a.job.id) is a
    assert in_flight.turns.next() is b
    assert in_flight.turns.begin(b.job.id) is c
    assert in_flight.turns.begin(c.job.id) is None


def test_a_thread_whose_turn_has_ended_is_called_again() -> None:
    in_flight = make_in_flight(threads=1)
    (held,) = hold(in_flight, 1)
    in_flight.turns.begin(held.job.id)
    waiting = make_held(SLOW)
    assert in_flight.add([waiting]) == []
    assert in_flight.turns.next() is waiting
    assert in_flight.turns.next() is None
    another = make_held(SLOW)
    assert in_flight.add([another]) == [another]


def test_a_thread_that_ends_its_turn_for_something_else_leaves_a_call_behind() -> None:
    in_flight = make_in_flight(threads=1)
    held = hold(in_flight, 3)
    in_flight.turns.begin(held[0].job.id)
    assert in_flight.turns.end() == [held[1]]
    assert in_flight.turns.begin(held[1].job.id) is held[1]


def test_a_call_in_vain_harms_nobody(in_flight: InFlight) -> None:
    assert in_flight.turns.begin("unknown") is None
    held = [make_held(SLOW) for _ in range(5)]
    assert in_flight.add(held) == held[:4]


def test_calls_that_got_lost_are_made_again(in_flight: InFlight) -> None:
    held = hold(in_flight, 2)
    assert in_flight.turns.recall(2) == []
    assert in_flight.turns.recall(0) == held
    assert in_flight.turns.begin(held[0].job.id) is held[0]


def test_a_job_never_waits_while_a_thread_is_idle_whoever_comes_and_goes() -> None:
    """Threads that take turns at full speed beside one that supplies."""
    in_flight, calls, ran = make_in_flight(threads=4), threading.Semaphore(0), []
    called: list[InFlightJob] = []
    everything = [make_held(SLOW) for _ in range(2_000)]
    over = threading.Event()

    def thread() -> None:
        while not over.is_set():
            if calls.acquire(timeout=0.05):
                job = in_flight.turns.begin(called.pop().job.id)
                while job is not None:
                    ran.append(job)
                    in_flight.free_place(job)
                    in_flight.remove([job])
                    job = in_flight.turns.next()

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for one in threads:
        one.start()
    for at in range(0, 2_000, 5):
        for job in in_flight.add(everything[at : at + 5]):
            called.append(job)
            calls.release()
    assert in_flight.wait_until_empty(20)
    over.set()
    for one in threads:
        one.join(5)
    assert len(ran) == len(set(map(id, ran))) == 2_000


# watermarks


def rung(in_flight: InFlight) -> list[int]:
    rings: list[int] = []
    in_flight.watermarks.on_reached = lambda: rings.append(1)
    return rings


def test_whoever_claims_is_woken_once_when_no_more_than_so_many_wait() -> None:
    in_flight = make_in_flight(threads=1)
    rings, held = rung(in_flight), hold(in_flight, 4)
    in_flight.turns.begin(held[0].job.id)
    in_flight.watermarks.set(ready=1)
    in_flight.turns.next()
    assert rings == []
    in_flight.turns.next()
    assert rings == [1]
    in_flight.turns.next()
    assert rings == [1]


def test_whoever_claims_is_woken_when_a_thread_has_nothing(in_flight: InFlight) -> None:
    rings, (held,) = rung(in_flight), hold(in_flight, 1)
    in_flight.watermarks.set(ready=-1)
    in_flight.turns.begin(held.job.id)
    assert rings == []
    in_flight.turns.next()
    assert rings == [1]


def test_whoever_claims_is_woken_when_so_many_places_are_free(in_flight: InFlight) -> None:
    rings, held = rung(in_flight), hold(in_flight, 10, WAITS)
    in_flight.watermarks.set(places=2)
    in_flight.free_place(held[0])
    assert rings == []
    in_flight.free_place(held[1])
    assert rings == [1]


def test_whoever_claims_is_woken_by_what_was_written_only_where_he_waits_for_that(
    in_flight: InFlight,
) -> None:
    rings, held = rung(in_flight), hold(in_flight, 2, WAITS)
    in_flight.remove(held[:1])
    assert rings == []
    in_flight.watermarks.set(written=True)
    in_flight.remove(held[1:])
    assert rings == [1]


# suspects


@both_kinds
def test_a_suspect_is_alone_until_it_has_ended(in_flight: InFlight, event_type: Any) -> None:
    hold(in_flight, 3)
    assert in_flight.isolation.seconds_left() == 0
    suspects = hold(in_flight, 1, event_type, company=1, deaths=1)
    assert 4 < in_flight.isolation.seconds_left() <= 5
    in_flight.remove(suspects)
    assert in_flight.isolation.seconds_left() == 0


def test_a_suspect_that_takes_long_is_not_waited_for_forever(in_flight: InFlight) -> None:
    (suspect,) = hold(in_flight, 1, company=1, deaths=1)
    suspect.alone_until = time.monotonic() - 0.01
    assert in_flight.isolation.seconds_left() == 0


def test_with_each_death_a_suspect_is_left_alone_longer_but_never_for_good(
    in_flight: InFlight,
) -> None:
    times = []
    for deaths in (1, 2, 3, 50):
        (suspect,) = hold(in_flight, 1, make_type("slow", done), company=1, deaths=deaths)
        times.append(suspect.alone_until - time.monotonic())
    assert times == sorted(times)
    assert times[-1] <= 600
