"""When jobs are looked for, where, and how many: with sources that say what they were asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import redis

from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.job import Hint
from service.queue.lanes import Lane
from service.worker.claiming.claimer import Draining, Won
from service.worker.claiming.course import Course, choose
from service.worker.claiming.supplier import Supplier
from service.worker.claiming.supply import Supply
from service.worker.fleet.lease import Lease
from service.worker.holding.capacity import Capacity
from service.worker.holding.in_flight import InFlight
from service.worker.holding.isolation import Isolation
from service.worker.holding.job import InFlightJob
from tests.factories import done, done_async, make_catalog, make_held, make_hint, make_type

EMAIL = make_type("email", done_async)
SLOW = make_type("slow", done)
FAST = make_type("fast", done)


class FakeSource:
    """Lanes with so many hints each."""

    def __init__(self) -> None:
        self.waiting: set[Lane] = set()
        self.lanes: dict[str, list[Hint]] = {}
        self.asked: list[dict[str, int]] = []
        self.returned: list[tuple[Hint, bool]] = []
        self.fail: Exception | None = None
        self.poured_later: set[Lane] = set()

    def put(self, count: int, name: str = "slow") -> list[Hint]:
        hints = [make_hint(type=name) for _ in range(count)]
        self.lanes.setdefault(name, []).extend(hints)
        return hints

    def take(self, wants: Mapping[Lane, int], most: int) -> list[Hint]:
        if self.fail is not None:
            raise self.fail
        self.asked.append({lane.type: count for lane, count in wants.items()})
        taken: list[Hint] = []
        for lane, count in wants.items():
            there = self.lanes.get(lane.type, [])
            taken += there[:count]
            del there[:count]
        self.waiting = {Lane("default", n) for n, hints in self.lanes.items() if hints}
        self.waiting |= self.poured_later
        return taken[:most]

    def return_unclaimed(self, hints: Sequence[Hint], *, wake: bool) -> None:
        self.returned += [(hint, wake) for hint in hints]


class FakeClaimer:
    """Wins what it is asked for, unless told otherwise."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self.last_claim = float("-inf")
        self.claims: list[list[Hint]] = []
        self.suspects: list[list[str]] = []
        self.fail: Exception | None = None
        self.too_large: list[Hint] = []
        self.held: list[InFlightJob] = []

    def claim(self, hints: Sequence[Hint]) -> Won:
        if self.fail is not None:
            raise self.fail
        self.last_claim = time.monotonic()
        self.claims.append(list(hints))
        types = {t.name: t for t in self._supply.catalog}
        held = [make_held(types[h.type], id=h.job_id) for h in hints if h not in self.too_large]
        self._supply.in_flight.add(held)
        self._supply.in_flight.start([h for h in held if h.is_async])
        self.held += held
        return Won(held, self.too_large)

    def claim_suspects(self, ids: Sequence[str]) -> Won:
        self.suspects.append(list(ids))
        self._supply.suspects_wait.clear()
        return Won([], [])


class FakeListener:
    def __init__(self) -> None:
        self.inbox: deque[Hint] = deque()
        self.is_on = False

    def turn_on(self) -> None:
        self.is_on = True

    def turn_off(self) -> None:
        self.is_on = False


class FakeStore:
    def __init__(self) -> None:
        self.waiting = self
        self.found: list[tuple[str, int]] = []

    def suspects(self, *_: Any) -> list[tuple[str, int]]:
        return self.found


class Bench:
    def __init__(self, *types: Any, threads: int = 4, places: int = 40) -> None:
        lease = Lease(600)
        lease.renew(time.monotonic())
        self.store = FakeStore()
        self.in_flight = InFlight(Capacity(threads, places), Isolation())
        self.supply = Supply(
            store=self.store,  # type: ignore[arg-type]
            counters=None,  # type: ignore[arg-type]
            in_flight=self.in_flight,
            lease=lease,
            clock=ServerClock(),
            catalog=make_catalog(types),
            worker_id="me",
            queues=["default"],
        )
        self.redis, self.mongo, self.listener = FakeSource(), FakeSource(), FakeListener()
        self.claimer = FakeClaimer(self.supply)
        self.supplier = Supplier(
            self.supply,
            self.claimer,  # type: ignore[arg-type]
            self.listener,  # type: ignore[arg-type]
            in_redis=self.redis,
            in_mongodb=self.mongo,
            look_for_lost_calls=lambda: None,
        )

    def steps(self, most: int = 50) -> float:
        """As long as it has something to do; how long it wants to sleep then."""
        for _ in range(most):
            if (seconds := self.supplier.step()) > 0:
                return seconds
        raise AssertionError("it never comes to rest")

    @property
    def claimed(self) -> list[Hint]:
        return [hint for claim in self.claimer.claims for hint in claim]

    def end(self, held: InFlightJob, seconds: float = 1.0) -> None:
        """Its run ends after so long, and its outcome is written."""
        if not held.is_async:
            self.in_flight.turns.begin(held.job.id)
        held.started = time.monotonic() - seconds
        self.in_flight.free_place(held)
        self.in_flight.remove([held])
        if not held.is_async:
            self.in_flight.turns.end()

    def ran(self, event_type: Any, seconds: float, count: int = 50) -> None:
        """So many runs of this type took so long."""
        for _ in range(count):
            held = make_held(event_type)
            self.in_flight.add([held])
            self.end(held, seconds)


# the choice


@pytest.mark.parametrize(
    ("told", "course"),
    [
        ({}, Course.REDIS),
        ({"redis_away": True}, Course.MONGODB),
        ({"suspects_wait": True}, Course.SUSPECTS),
        ({"suspects_wait": True, "redis_away": True}, Course.SUSPECTS),
        ({"is_isolated": True, "suspects_wait": True, "redis_away": True}, Course.ISOLATE),
        ({"may_claim": False, "is_isolated": True, "suspects_wait": True}, Course.REST),
    ],
)
def test_what_it_does_next(told: dict[str, bool], course: Course) -> None:
    usual = {"may_claim": True, "is_isolated": False, "suspects_wait": False, "redis_away": False}
    assert choose(**(usual | told)) is course


# with nothing to do


def test_while_nothing_waits_it_listens_and_asks_for_nothing() -> None:
    bench = Bench(SLOW)
    assert bench.steps() == 5.0
    assert bench.listener.is_on
    asked = len(bench.redis.asked)
    assert bench.steps() == 5.0
    assert len(bench.redis.asked) == asked == 1


def test_a_hint_that_came_alone_is_claimed_before_redis_is_asked_again() -> None:
    bench = Bench(SLOW)
    bench.steps()
    hint = make_hint(type="slow")
    bench.listener.inbox.append(hint)
    bench.redis.fail = RuntimeError("asked too early")
    bench.supplier.step()
    assert bench.claimed == [hint]


def test_what_came_behind_a_hint_is_taken_with_the_next_look() -> None:
    bench = Bench(SLOW, threads=8)
    bench.steps()
    first = make_hint(type="slow")
    more = bench.redis.put(3)
    bench.listener.inbox.append(first)
    bench.steps()
    assert bench.claimed == [first, *more]
    assert bench.listener.is_on


def test_at_its_start_it_takes_what_waits() -> None:
    bench = Bench(SLOW, EMAIL)
    hints = [*bench.redis.put(2), *bench.redis.put(2, "email")]
    bench.steps()
    assert {h.job_id for h in bench.claimed} == {h.job_id for h in hints}


def test_of_many_lanes_only_those_that_have_something_are_asked_for() -> None:
    bench = Bench(*[make_type(f"q{n}") for n in range(100)], threads=8)
    bench.redis.put(3, "q7")
    bench.redis.waiting = set()
    bench.redis.poured_later = {Lane("default", "q7")}
    bench.supplier.step()
    bench.redis.poured_later = set()
    bench.steps()
    assert bench.redis.asked[0] == {}
    assert bench.redis.asked[1].keys() == {"q7"}
    assert len(bench.claimed) == 3


# with too much to do


def test_no_more_is_taken_than_finds_room() -> None:
    bench = Bench(SLOW, threads=4)
    hints = bench.redis.put(10)
    seconds = bench.steps()
    assert bench.claimed == hints[:4]
    assert not bench.listener.is_on or not bench.redis.waiting
    assert 0 < seconds <= 1


def test_a_thread_that_becomes_idle_wakes_it_and_gets_the_next_job() -> None:
    bench = Bench(SLOW, threads=2)
    bench.redis.put(4)
    bench.steps()
    bench.supply.wake.clear()
    (first, _) = bench.claimer.held
    bench.in_flight.turns.begin(first.job.id)
    first.started -= 1.0
    bench.in_flight.free_place(first)
    assert not bench.supply.wake.is_set()
    assert bench.in_flight.turns.next() is not None  # the one that is ready
    assert bench.in_flight.turns.next() is None
    assert bench.supply.wake.is_set()
    bench.steps()
    assert len(bench.claimed) == 3


def test_short_jobs_are_claimed_by_the_hundred_when_half_of_them_have_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.worker.holding.run_times._STALE_SECONDS", 60.0)
    bench = Bench(FAST, threads=4)
    bench.ran(FAST, 0.001)
    bench.redis.put(5_000, "fast")
    bench.steps()
    first = len(bench.claimed)
    assert first >= 40
    bench.supply.wake.clear()
    count = 0
    job = bench.in_flight.turns.begin("")
    while not bench.supply.wake.is_set():
        assert job is not None
        bench.in_flight.free_place(job)
        job = bench.in_flight.turns.next()
        count += 1
    assert first / 3 < count < first
    bench.steps()
    assert len(bench.claimer.claims[-1]) >= first / 3


def test_coroutines_are_claimed_when_an_eighth_of_the_places_is_free() -> None:
    bench = Bench(EMAIL, places=80)
    bench.redis.put(500, "email")
    bench.steps()
    assert len(bench.claimed) == 80
    bench.claimer.last_claim = time.monotonic() + 60  # no time passes
    bench.supply.wake.clear()
    for held in bench.claimer.held[:10]:
        bench.steps()
        bench.supply.wake.clear()
        bench.end(held)
    assert bench.supply.wake.is_set()
    bench.steps()
    assert len(bench.claimed) == 90


def test_few_places_are_used_after_some_milliseconds() -> None:
    bench = Bench(EMAIL, places=80)
    bench.redis.put(500, "email")
    bench.steps()
    bench.end(bench.claimer.held[0])
    bench.claimer.last_claim = time.monotonic()
    seconds = bench.steps()
    assert seconds <= 0.05
    bench.claimer.last_claim -= 1.0
    bench.steps()
    assert len(bench.claimed) == 81


def test_while_one_type_waits_for_room_others_are_looked_for_now_and_then() -> None:
    bench = Bench(SLOW, EMAIL, threads=2)
    bench.redis.put(10)
    assert bench.steps() <= 0.05
    (email,) = bench.redis.put(1, "email")
    time.sleep(0.06)  # the thing itself
    bench.steps()
    assert email in bench.claimed


def test_jobs_that_find_no_room_are_not_asked_for_again_and_again() -> None:
    bench = Bench(SLOW, EMAIL, threads=2)
    bench.redis.put(30)
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        time.sleep(min(bench.steps(), 0.5))
    assert len(bench.redis.asked) <= 14
    assert all("slow" not in asked for asked in bench.redis.asked[1:])


def test_a_hint_without_room_goes_to_another_worker_and_nobody_listens_in_a_tight_loop() -> None:
    bench = Bench(SLOW, EMAIL, threads=1)
    bench.redis.put(1)
    bench.steps()
    assert bench.listener.is_on
    for _ in range(3):
        hint = make_hint(type="slow")
        bench.redis.poured_later = {Lane("default", "slow")}  # there it waits now
        bench.listener.inbox.append(hint)
        assert bench.steps() > 0
        assert bench.redis.returned[-1] == (hint, True)
        assert not bench.listener.is_on
    bench.redis.poured_later = set()
    time.sleep(0.06)
    bench.steps()
    assert bench.listener.is_on


def test_a_lane_that_is_poured_at_this_moment_is_waited_for() -> None:
    bench = Bench(SLOW)
    bench.redis.poured_later = {Lane("default", "slow")}
    assert 0 < bench.steps() <= 0.1
    assert bench.listener.is_on
    assert len(bench.redis.asked) == 1


def test_lanes_take_turns_where_there_is_room_for_few() -> None:
    types = [make_type(f"q{n}") for n in range(10)]
    bench = Bench(*types, threads=2)
    for event_type in types:
        bench.redis.put(10, event_type.name)
    for _ in range(30):
        bench.steps()
        for held in bench.claimer.held[-2:]:
            bench.end(held)
    served = {hint.type for hint in bench.claimed}
    assert len(served) == 10


# what goes wrong


def test_what_was_taken_and_not_claimed_is_put_back() -> None:
    bench = Bench(SLOW)
    hints = bench.redis.put(3)
    bench.claimer.fail = StoreUnavailable("as asked")
    assert 0.2 < bench.steps() <= 1
    assert bench.redis.returned == [(hint, False) for hint in hints]


def test_what_a_process_took_that_stops_is_for_others_at_once() -> None:
    bench = Bench(SLOW)
    hints = bench.redis.put(3)
    bench.claimer.fail = Draining()
    assert bench.steps() > 0
    assert bench.redis.returned == [(hint, True) for hint in hints]


def test_what_is_too_large_is_for_others() -> None:
    bench = Bench(SLOW)
    hints = bench.redis.put(3)
    bench.claimer.too_large = hints[1:]
    bench.supplier.step()
    assert bench.redis.returned == [(hint, True) for hint in hints[1:]]


def test_a_redis_that_fails_is_noticed_and_jobs_go_on() -> None:
    bench = Bench(SLOW)
    (hint,) = bench.mongo.put(1)
    bench.redis.fail = redis.TimeoutError("as asked")
    bench.steps()
    assert bench.supply.redis_away.is_set()
    assert bench.claimed == [hint]


def test_whatever_goes_wrong_it_goes_on() -> None:
    bench = Bench(SLOW)
    bench.redis.fail = RuntimeError("as asked")
    assert 0 < bench.supplier.step() < 1
    bench.redis.fail = None
    (hint,) = bench.redis.put(1)
    bench.steps()
    assert bench.claimed == [hint]


def test_while_redis_is_away_a_full_type_is_waited_for_and_others_are_asked_for() -> None:
    bench = Bench(SLOW, EMAIL, threads=2)
    bench.supply.redis_away.set()
    bench.mongo.put(4)
    bench.steps()
    bench.supply.wake.clear()
    assert bench.mongo.asked[-1].keys() == {"email"}
    bench.end(bench.claimer.held[0])
    bench.in_flight.turns.begin(bench.claimer.held[1].job.id)
    bench.in_flight.turns.next()
    assert bench.supply.wake.is_set()
    bench.steps()
    assert len(bench.claimed) == 3


def test_due_jobs_that_nobody_can_claim_are_not_asked_for_in_a_tight_loop() -> None:
    """Suspects, say."""
    bench = Bench(SLOW)
    bench.supply.redis_away.set()
    (hint,) = bench.mongo.put(1)
    bench.claimer.too_large = [hint]  # so that nothing is held
    assert bench.supplier.step() > 0


# who may not claim


@pytest.mark.parametrize("reason", ["draining", "lapsed"])
def test_a_process_that_stops_or_is_taken_for_dead_claims_nothing(reason: str) -> None:
    bench = Bench(SLOW)
    bench.redis.put(1)
    hint = make_hint(type="slow")
    bench.listener.inbox.append(hint)
    bench.listener.turn_on()
    if reason == "draining":
        bench.supply.draining.set()
    else:
        bench.supply.lease.renew(time.monotonic() - 601)
    assert bench.steps() > 0
    assert bench.claimed == []
    assert bench.redis.asked == []
    assert bench.redis.returned == [(hint, True)]
    assert not bench.listener.is_on


def test_nothing_is_claimed_beside_a_suspect_in_its_first_moments() -> None:
    bench = Bench(SLOW)
    suspect = make_held(SLOW, company=1, deaths=1)
    bench.in_flight.add([suspect])
    (first,) = bench.redis.put(1)
    hint = make_hint(type="slow")
    bench.listener.inbox.append(hint)
    assert 0 < bench.steps() <= 1
    assert bench.claimed == []
    assert bench.redis.returned == [(hint, True)]
    bench.supply.wake.clear()
    bench.in_flight.remove([suspect])
    assert bench.supply.wake.is_set()
    bench.steps()
    assert bench.claimed == [first]


def test_suspects_go_first_in_the_company_that_they_may_have() -> None:
    bench = Bench(SLOW)
    bench.redis.put(1)
    bench.store.found = [("a", 2), ("b", 2), ("c", 2), ("d", 1)]
    bench.supply.suspects_wait.set()
    bench.supplier.step()
    assert bench.claimer.suspects == [["a", "b"]]
    assert bench.claimed == []


def test_where_no_suspects_are_left_all_goes_on() -> None:
    bench = Bench(SLOW)
    (hint,) = bench.redis.put(1)
    bench.supply.suspects_wait.set()
    bench.steps()
    assert not bench.supply.suspects_wait.is_set()
    assert bench.claimed == [hint]


@pytest.mark.parametrize("signal", ["draining", "redis_away", "suspects_wait"])
def test_whatever_happens_wakes_it(signal: str) -> None:
    bench = Bench(SLOW)
    getattr(bench.supply, signal).set()
    assert bench.supply.wake.is_set()
    bench.supply.wake.clear()
    getattr(bench.supply, signal).clear()
    assert bench.supply.wake.is_set()
    bench.supply.wake.clear()
    getattr(bench.supply, signal).clear()
    assert not bench.supply.wake.is_set()


def test_it_runs_until_it_is_stopped() -> None:
    bench = Bench(SLOW)
    bench.supplier.start()
    (hint,) = bench.redis.put(1)
    deadline = threading.Event()
    bench.supply.wake.set()
    while not bench.listener.is_on:
        assert not deadline.wait(0.005)
    bench.supplier.stop()
    bench.supplier.join(5)
    assert not bench.supplier.is_alive()
    assert hint is not None
