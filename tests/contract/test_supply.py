"""Where a worker's jobs come from: lanes in Redis, suspects, or straight from MongoDB."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest
import redis

from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.job import Job, Outcome, transition_after_death
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.queue.lanes import Lane
from service.settings import Settings
from service.store import Counters, JobStore
from service.worker.claiming.mongo_source import Frontier, MongoSource
from service.worker.claiming.supply import Supply
from service.worker.claiming.supply_threads import SupplyThreads
from service.worker.claiming.unheld import release_unheld
from service.worker.fleet.lease import Lease
from service.worker.holding.capacity import Capacity
from service.worker.holding.in_flight import InFlight
from service.worker.holding.isolation import Isolation
from service.worker.holding.job import InFlightJob
from tests.factories import (
    NOW,
    accept,
    accept_many,
    claim,
    claimed,
    done,
    done_async,
    eventually,
    finish,
    make_catalog,
    make_hint,
    make_type,
)

EMAIL = make_type("email", done_async)
REPORT = make_type("report", done_async)
SLOW = make_type("slow", done)


class FlakyStore:
    """The real store behind a network that loses a claim, or only the reply to it."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self.claims = self
        self.lose: str | None = None
        self.cancel_after_claim = False
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()

    def __getattr__(self, name: str) -> Any:
        part = self._store if hasattr(self._store, name) else self._store.claims
        return getattr(part, name)

    def claim(self, job_ids: Sequence[str], worker: str, now: datetime, **more: Any) -> list[Job]:
        self.asked.set()
        self.gate.wait(5)
        lost, self.lose = self.lose, None
        if lost == "claim":
            raise StoreUnavailable("as asked")
        jobs = self._store.claims.claim(job_ids, worker, now, **more)
        if lost == "reply":
            raise StoreUnavailable("as asked")
        if self.cancel_after_claim:
            for job in jobs:
                self._store.requests.cancel(job.id, NOW)
                job.cancel_requested = True
        return jobs


class Bench:
    """A process's supply with all that it needs, on real servers; its jobs never run."""

    def __init__(
        self, settings: Settings, store: JobStore, counters: Counters, types: Any, threads: int
    ) -> None:
        self.store, self.counters, self.catalog = store, counters, make_catalog(types)
        self.flaky = FlakyStore(store)
        self.client = redis_client.connect(settings, timeout_seconds=8, reconnects=0)
        self.broker = PulseBroker(redis_client.connect(settings), window=50)
        lease = Lease(600)
        lease.renew(time.monotonic())
        self.clock = ServerClock()
        self.in_flight = InFlight(Capacity(threads, 40, 16 * 1_048_576), Isolation())
        self.supply = Supply(
            store=self.flaky,  # type: ignore[arg-type]
            counters=counters,
            in_flight=self.in_flight,
            lease=lease,
            clock=self.clock,
            catalog=self.catalog,
            worker_id="me",
            queues=["default"],
        )
        self.called: list[InFlightJob] = []
        self.handed_over: list[InFlightJob] = []
        self.threads = SupplyThreads(
            self.supply,
            self.broker.lanes,
            self.client,
            hand_over=self._hand_over,
            look_for_lost_calls=lambda: None,
        )
        self.supplier = self.threads.supplier
        self._started = False

    def _hand_over(self, called: Sequence[InFlightJob], jobs: Sequence[InFlightJob]) -> None:
        self.called += called
        self.handed_over += jobs
        self.in_flight.start([job for job in jobs if job.is_async])

    def start(self) -> None:
        self._started = True
        self.threads.start()

    def close(self) -> None:
        if self._started:
            self.supply.draining.set()
            self.threads.stop()
            for thread in self.threads:
                thread.join(10)
                assert not thread.is_alive()
        self.broker.close()
        self.client.close()

    def post(self, count: int = 1, **event: Any) -> list[str]:
        """New jobs with their hints; their ids."""
        ids = accept_many(self.store, count, **event)
        self.send(*ids, **event)
        return ids

    def send(self, *ids: str, **of: Any) -> None:
        wanted = {k: v for k, v in of.items() if k in ("type", "priority")}
        self.broker.enqueue_many([make_hint(job_id=i, **wanted) for i in ids])

    def look(self, most: int = 20) -> list[str]:
        """All jobs that looks bring until there is nothing to do; it doesn't wait."""
        before = len(self.handed_over)
        self.supplier.redis_look.look_at = 0.0
        for _ in range(most):
            if self.supplier.step() > 0:
                break
        return [job.job.id for job in self.handed_over[before:]]

    def waiting(self, name: str = "email") -> set[str]:
        return self.broker.lanes.listed(Lane("default", name))

    def held(self, job_id: str) -> InFlightJob | None:
        """The job as this process holds it."""
        return next((h for h in self.in_flight.held_longer_than(0) if h.job.id == job_id), None)

    def end(self, *ids: str) -> None:
        """Their outcomes are written."""
        self.in_flight.remove([held for i in ids if (held := self.held(i)) is not None])


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(
    settings: Settings, store: JobStore, counters: Counters, redis_connection: redis.Redis
) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(*types: Any, threads: int = 4) -> Bench:
        bench = Bench(settings, store, counters, types or [EMAIL], threads)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.flaky.gate.set()
        bench.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()


def status(bench: Bench, job_id: str) -> tuple[str, int]:
    document = bench.store.requests.get(job_id)
    return document["status"], document["attempts"]


# hints


def test_what_is_taken_together_is_claimed_together_and_handed_over(bench: Bench) -> None:
    ids = bench.post(10)
    assert sorted(bench.look()) == ids
    assert {status(bench, i) for i in ids} == {("processing", 1)}
    assert len({held.job.claim for held in bench.handed_over}) == 1
    assert len(bench.in_flight) == 10
    assert bench.called == []


def test_threads_are_called_for_plain_functions(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, threads=4)
    ids = bench.post(3, type="slow")
    bench.look()
    assert sorted(job.job.id for job in bench.called) == ids


def test_a_hint_is_spent_when_it_is_taken(bench: Bench) -> None:
    bench.post(3)
    bench.look()
    assert bench.waiting() == set()


def test_ten_hints_for_one_job_are_one_run(bench: Bench) -> None:
    (job_id,) = bench.post()
    bench.send(*[job_id] * 9)
    assert bench.look() == [job_id]
    bench.send(*[job_id] * 5)
    assert bench.look() == []
    assert bench.waiting() == set()


def test_hints_at_jobs_that_do_not_wait_come_to_nothing(bench: Bench) -> None:
    running, over, future, cancelled = (
        claimed(bench.store),
        claimed(bench.store),
        accept(bench.store, delay_ms=86_400_000),
        accept(bench.store),
    )
    finish(bench.store, over)
    bench.store.requests.cancel(cancelled["_id"], NOW)
    bench.send(running.id, over.id, future["_id"], cancelled["_id"], make_hint().job_id)
    assert bench.look() == []
    assert bench.waiting() == set()
    assert status(bench, future["_id"]) == ("pending", 0)


@pytest.mark.parametrize("junk", [b"", b"{", b"\x80\x04K\x01.", b"[" * 5_000, b"{}"])
def test_junk_is_put_aside_and_counted_and_its_neighbours_run(bench: Bench, junk: bytes) -> None:
    before = bench.post(2)
    bench.broker.client.rpush("dramatiq:default/email", junk)
    bench.broker.client.sadd("dramatiq:__lanes__", "default/email")
    after = bench.post(2)
    assert sorted(bench.look()) == sorted([*before, *after])
    assert eventually(lambda: bench.counters.read() == {"_worker": {"junk": 1}})
    assert bench.look() == []


def test_junk_that_wakes_the_listener_is_counted_and_what_comes_after_it_runs(bench: Bench) -> None:
    bench.start()
    assert eventually(bench.threads._listener._on.is_set)
    for _ in range(3):
        bench.broker.client.rpush("dramatiq:default:front", b"{}")
    assert eventually(lambda: bench.counters.read() == {"_worker": {"junk": 3}})
    (job_id,) = bench.post()
    assert eventually(lambda: [job.job.id for job in bench.handed_over] == [job_id])


def test_a_hint_that_lies_about_its_jobs_type_starts_it_as_what_it_is(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(EMAIL, REPORT)
    job_id = accept(bench.store, type="report")["_id"]
    bench.send(job_id)
    assert bench.look() == [job_id]
    held = bench.held(job_id)
    assert held is not None
    assert held.type.name == "report"


def test_a_job_of_a_type_unknown_here_goes_back_whatever_its_hint_says(bench: Bench) -> None:
    job_id = accept(bench.store, type="newer")["_id"]
    bench.send(job_id)
    assert bench.look() == []
    assert status(bench, job_id) == ("pending", 0)
    assert len(bench.in_flight) == 0


def test_a_job_of_a_type_unknown_here_that_was_to_be_cancelled_is_counted_as_cancelled(
    bench: Bench,
) -> None:
    """The request came right behind its claim."""
    job_id = accept(bench.store, type="newer")["_id"]
    bench.send(job_id)
    bench.flaky.cancel_after_claim = True
    assert bench.look() == []
    assert status(bench, job_id) == ("cancelled", 0)
    expected = {"newer": {"cancelled": 1}}
    assert eventually(lambda: bench.counters.read() == expected), bench.counters.read()


# how many


def test_slow_jobs_are_held_no_more_than_there_are_threads(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, threads=4)
    ids = bench.post(10, type="slow")
    assert sorted(bench.look()) == ids[:4]
    assert bench.waiting("slow") == set(ids[4:])


def test_a_type_that_is_full_hides_no_other(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, EMAIL, threads=2)
    slow = bench.post(5, type="slow", priority="high")
    emails = bench.post(2)
    assert sorted(bench.look()) == sorted([*slow[:2], *emails])
    assert bench.waiting("slow") == set(slow[2:])


def test_an_outcome_makes_room(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, threads=1)
    first, second = bench.post(2, type="slow")
    assert bench.look() == [first]
    assert bench.look() == []
    bench.end(first)
    assert bench.look() == [second]


def test_what_found_no_room_in_redis_is_poured_in_and_comes_oldest_first(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(SLOW, threads=200)
    ids = bench.post(180, type="slow")
    assert len(bench.waiting("slow")) <= 60
    bench.start()
    eventually(lambda: len(bench.handed_over) == 180, within=10)
    assert sorted(job.job.id for job in bench.handed_over) == ids
    eventually(lambda: not bench.broker.lanes.has_overflow(Lane("default", "slow")), within=10)


# waiting


def test_an_idle_process_wakes_for_a_hint_at_once(bench: Bench) -> None:
    bench.start()
    latencies = []
    for number in range(10):
        time.sleep(0.03)  # until it is idle
        began = time.monotonic()
        bench.post()
        eventually(lambda n=number: len(bench.handed_over) == n + 1)
        latencies.append(time.monotonic() - began)
    assert sorted(latencies)[5] < 0.2


def test_an_idle_process_does_not_poll(bench: Bench, redis_connection: redis.Redis) -> None:
    bench.start()
    time.sleep(0.3)
    before = redis_connection.info("stats")["total_commands_processed"]
    time.sleep(0.5)  # the thing itself: nothing happens for a while
    after = redis_connection.info("stats")["total_commands_processed"]
    assert after - before < 4
    bench.post()
    eventually(lambda: len(bench.handed_over) == 1)


def test_of_two_idle_processes_the_one_with_room_gets_the_job(make_bench: MakeBench) -> None:
    full, free = make_bench(SLOW, threads=1), make_bench(SLOW, threads=1)
    full.post(1, type="slow")
    full.look()
    full.start()
    free.start()
    time.sleep(0.1)
    began = time.monotonic()
    (job_id,) = free.post(1, type="slow")
    eventually(lambda: [job.job.id for job in free.handed_over] == [job_id])
    assert time.monotonic() - began < 2


def test_a_process_that_stops_ends_its_waiting_at_once(bench: Bench) -> None:
    bench.start()
    time.sleep(0.1)
    began = time.monotonic()
    bench.supply.draining.set()
    bench.threads.stop()
    for thread in bench.threads:
        thread.join(5)
        assert not thread.is_alive()
    assert time.monotonic() - began < 2


# stopping


@pytest.mark.parametrize("source", ["hints", "a hint that wakes", "mongodb", "suspects"])
def test_a_process_told_to_stop_while_its_claim_waits_claims_nothing(
    bench: Bench, source: str
) -> None:
    """A look for lost claims is under way, say."""
    job_id = suspect(bench) if source == "suspects" else bench.post()[0]
    if source == "mongodb":
        bench.supply.redis_away.set()
    if source == "a hint that wakes":
        hint = bench.broker.lanes.wait(bench.client, ["default"], 1).hint
        assert hint is not None
        bench.threads._listener.inbox.append(hint)
    with bench.supply.claiming:
        thread = threading.Thread(target=bench.look)
        thread.start()
        thread.join(0.3)
        bench.supply.draining.set()
    thread.join(10)
    assert bench.handed_over == []
    assert status(bench, job_id)[0] == "pending"
    assert len(bench.in_flight) == 0
    if source != "suspects":
        assert bench.waiting() == {job_id}


def test_a_process_that_is_taken_for_dead_while_its_claim_waits_claims_nothing(
    bench: Bench,
) -> None:
    (job_id,) = bench.post()
    with bench.supply.claiming:
        thread = threading.Thread(target=bench.look)
        thread.start()
        thread.join(0.3)
        bench.supply.lease.renew(time.monotonic() - 601)
    thread.join(10)
    assert status(bench, job_id) == ("pending", 0)
    assert bench.waiting() == {job_id}


# straight from MongoDB


def test_while_redis_is_away_jobs_come_from_mongodb(bench: Bench) -> None:
    low = accept(bench.store, priority="low")["_id"]
    normal = accept_many(bench.store, 3)
    high = accept(bench.store, priority="high")["_id"]
    accept(bench.store, type="unknown")
    accept(bench.store, delay_ms=86_400_000)
    bench.supply.redis_away.set()
    assert sorted(bench.look()) == sorted([high, *normal, low])
    assert bench.look() == []


def test_a_redis_that_fails_is_noticed_and_jobs_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = accept_many(bench.store, 1)

    def fail(*_: Any, **__: Any) -> Any:
        raise redis.TimeoutError("as asked")

    monkeypatch.setattr(bench.broker.lanes, "take", fail)
    assert bench.look() == [job_id]
    assert bench.supply.redis_away.is_set()


def test_workers_look_at_different_parts_of_the_backlog(make_bench: MakeBench) -> None:
    benches = [make_bench(SLOW, threads=10) for _ in range(2)]
    ids = accept_many(benches[0].store, 20, type="slow")
    for number, bench in enumerate(benches):
        bench.supply.redis_away.set()
        bench.supply.position = (number, 2)
    assert sorted(benches[1].look()) == ids[10:]
    assert sorted(benches[0].look()) == ids[:10]


def test_a_part_of_the_backlog_that_is_empty_is_left_for_the_beginning(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(SLOW, threads=10)
    ids = accept_many(bench.store, 5, type="slow")
    bench.supply.redis_away.set()
    bench.supply.position = (3, 4)
    assert sorted(bench.look()) == ids


def test_while_redis_is_away_a_type_that_is_full_hides_no_other(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, EMAIL, threads=2)
    bench.supply.redis_away.set()
    slow = accept_many(bench.store, 50, type="slow")
    (email,) = accept_many(bench.store, 1)
    assert sorted(bench.look()) == sorted([*slow[:2], email])


def test_a_priority_with_less_than_other_workers_part_of_it_is_not_passed_over(
    bench: Bench,
) -> None:
    source = MongoSource(bench.supply)
    bench.supply.position = (1, 2)
    high = accept(bench.store, priority="high")["_id"]
    for _ in range(3):
        accept(bench.store)
    for _ in range(2):
        taken = source.take({Lane("default", "email"): 4}, 4)
        assert high in [h.job_id for h in taken]


def test_a_frontier_moves_on_and_now_and_then_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    frontier = Frontier()
    assert frontier.since("normal") is None
    frontier.reached("normal", NOW)
    assert frontier.since("normal") == NOW
    assert frontier.since("high") is None
    frontier.reached("normal", None)
    assert frontier.since("normal") is None
    frontier.reached("normal", NOW)
    monkeypatch.setattr(frontier, "_anew_at", 0.0)
    assert frontier.since("normal") is None


# bytes


LARGE = {"pad": "x" * 1_000_000}


@pytest.mark.parametrize("redis_away", [False, True])
def test_no_more_is_held_than_has_room_in_memory_and_the_rest_waits_for_others(
    bench: Bench, redis_away: bool
) -> None:
    """Nothing was known of their size before they were claimed."""
    ids = [*bench.post(10, payload=LARGE), *bench.post(10, payload=LARGE)]
    if redis_away:
        bench.supply.redis_away.set()
    held = bench.look()
    assert len(held) == 17  # 16 have room; beyond that at most one job
    assert bench.in_flight.capacity.room(EMAIL) == 0
    others = [job_id for job_id in ids if job_id not in held]
    assert {status(bench, job_id) for job_id in others} == {("pending", 0)}
    assert bench.waiting() >= set(others)


def test_large_jobs_are_asked_for_one_by_one_once_their_size_is_known(bench: Bench) -> None:
    bench.post(10, payload=LARGE)
    bench.post(10, payload=LARGE)
    bench.end(*bench.look()[:3])
    assert bench.in_flight.capacity.room(EMAIL) == 2
    assert len(bench.look()) == 3  # two, and beyond that at most one


# suspects


def suspect(bench: Bench, *, company: int = 0) -> str:
    """A job whose process died: alone, or for the second time beside so many others."""
    job_id: str = accept(bench.store)["_id"]
    for number in range(2 if company else 1):
        victim = f"victim-{number}"
        claim(bench.store, job_id, worker=victim)
        others = accept_many(bench.store, company)
        bench.store.claims.claim(others, victim, NOW)
        stranded = bench.store.held.stranded(victim)
        bench.store.outcomes.finish([(s.job, transition_after_death(s, NOW)) for s in stranded])
        for other in others:
            bench.store.requests.cancel(other, NOW)
    bench.supply.suspects_wait.set()
    return job_id


def test_a_suspect_runs_alone(bench: Bench) -> None:
    job_id = suspect(bench)
    (other,) = bench.post()
    assert bench.look() == [job_id]
    assert len(bench.in_flight) == 1
    assert bench.waiting() == {other}
    bench.end(job_id)
    assert bench.look() == [other]
    assert not bench.supply.suspects_wait.is_set()


def test_suspects_go_in_the_company_that_they_may_have(bench: Bench) -> None:
    crowd = [suspect(bench, company=15) for _ in range(3)]
    lone = suspect(bench)
    assert set(bench.look()) < set(crowd)
    assert len(bench.in_flight) == 2
    assert bench.held(lone) is None


def test_a_suspect_waits_until_what_runs_has_ended(bench: Bench) -> None:
    (other,) = bench.post()
    bench.look()
    job_id = suspect(bench)
    looking = threading.Thread(target=bench.look)
    looking.start()
    looking.join(0.3)
    assert [job.job.id for job in bench.handed_over] == [other]
    bench.end(other)
    looking.join(10)
    assert [job.job.id for job in bench.handed_over] == [other, job_id]


def test_nothing_joins_a_suspect_in_its_first_moments(bench: Bench) -> None:
    job_id = suspect(bench)
    bench.start()
    eventually(lambda: len(bench.handed_over) == 1)
    bench.supply.suspects_wait.clear()
    (other,) = bench.post()
    time.sleep(0.3)  # the thing itself
    assert [job.job.id for job in bench.handed_over] == [job_id]
    bench.end(job_id)
    eventually(lambda: [job.job.id for job in bench.handed_over] == [job_id, other])


def test_a_suspect_that_waits_for_its_backoff_keeps_nobody_waiting(bench: Bench) -> None:
    job_id = suspect(bench)
    (job,) = bench.store.claims.claim_suspects([job_id], "w", NOW)
    finish(bench.store, job, Outcome.ERROR, at=bench.clock.now(), delay_ms=300_000)
    other = bench.post()
    assert bench.look() == other


# MongoDB is away


def test_hints_of_a_failed_claim_are_there_again(bench: Bench) -> None:
    ids = bench.post(3)
    bench.flaky.lose = "claim"
    assert bench.look() == []
    assert bench.waiting() == set(ids)
    assert sorted(bench.look()) == ids


def test_a_claim_whose_reply_was_lost_is_found_and_given_back(bench: Bench) -> None:
    ids = bench.post(3)
    bench.flaky.lose = "reply"
    assert bench.look() == []
    assert {status(bench, i) for i in ids} == {("processing", 1)}
    assert time.monotonic() < bench.supply.doubtful_until
    hints = release_unheld(bench.supply)
    assert sorted(h.job_id for h in hints) == sorted(ids)
    assert {status(bench, i) for i in ids} == {("pending", 0)}
    assert sorted(bench.look()) == sorted(ids)


def test_a_lost_claim_that_was_to_be_cancelled_is_counted_and_not_hinted_at(bench: Bench) -> None:
    kept, cancelled = (claimed(bench.store, worker="me").id for _ in range(2))
    bench.store.requests.cancel(cancelled, NOW)
    assert [h.job_id for h in release_unheld(bench.supply)] == [kept]
    assert status(bench, cancelled) == ("cancelled", 0)
    expected = {"email": {"cancelled": 1}}
    assert eventually(lambda: bench.counters.read() == expected), bench.counters.read()


def test_what_is_held_and_what_others_hold_is_not_given_back(bench: Bench) -> None:
    bench.post(3)
    bench.look()
    claimed(bench.store, worker="other")
    assert release_unheld(bench.supply) == []
    assert bench.store.held.holders() == {"me", "other"}


def test_a_lost_claim_is_told_from_a_held_one_with_the_same_number(bench: Bench) -> None:
    """A primary took the held one back, and the reply to the second one was lost."""
    (job_id,) = bench.post()
    bench.look()
    held = bench.held(job_id)
    assert held is not None
    query, other = {"_id": job_id, "claims": held.job.claims}, {"$set": {"claim": "another"}}
    assert bench.store.held._jobs.update_one(query, other).matched_count == 1
    assert [h.job_id for h in release_unheld(bench.supply)] == [job_id]
    assert status(bench, job_id) == ("pending", 0)


def test_nothing_is_given_back_while_a_claim_is_under_way(bench: Bench) -> None:
    claimed(bench.store, worker="me")
    with bench.supply.claiming:
        assert release_unheld(bench.supply) == []
    assert len(release_unheld(bench.supply)) == 1
