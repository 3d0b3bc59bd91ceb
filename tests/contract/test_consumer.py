"""Where a worker's jobs come from: messages in Redis, suspects, or straight from MongoDB."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Retries

from service.catalog import Catalog
from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.job import Job, Outcome, transition_after_death
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.settings import Settings
from service.store import Counters, JobStore
from service.worker.claiming.consumer import JobConsumer
from service.worker.claiming.due import DueJobs, Frontier
from service.worker.claiming.supply import Supply
from service.worker.claiming.unheld import release_unheld
from service.worker.fleet.lease import Lease
from service.worker.registry import Held, Registry
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
    make_held,
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

    def __getattr__(self, name: str) -> Any:
        part = self._store if hasattr(self._store, name) else self._store.claims
        return getattr(part, name)

    def claim(
        self,
        job_ids: Sequence[str],
        worker: str,
        now: datetime,
        types: Sequence[str] | None = None,
        **more: Any,
    ) -> list[Job]:
        lost, self.lose = self.lose, None
        if lost == "claim":
            raise StoreUnavailable("as asked")
        jobs = self._store.claims.claim(job_ids, worker, now, types, **more)
        if lost == "reply":
            raise StoreUnavailable("as asked")
        if self.cancel_after_claim:
            for job in jobs:
                self._store.requests.cancel(job.id, NOW)
                job.cancel_requested = True
        return jobs


class Bench:
    """A consumer of the queue `default` with all that it needs, on real servers."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        counters: Counters,
        catalog: Catalog,
        threads: int,
    ) -> None:
        self.store, self.counters, self.catalog = store, counters, catalog
        self.flaky = FlakyStore(store)
        self.wake_client = redis_client.connect(settings, timeout_seconds=5, reconnects=0)
        self.broker = PulseBroker(redis_client.connect(settings), window=50, middleware=[Retries()])
        self.broker.declare_queue("default")
        for event_type in catalog:
            actor = dramatiq.actor(broker=self.broker, actor_name=event_type.name)
            actor(lambda job_id: None)
        dramatiq.actor(broker=self.broker, actor_name="other")(lambda *args: None)
        lease = Lease(600)
        lease.renew(time.monotonic())
        self.clock = ServerClock()
        self.registry = Registry(threads, 40, catalog, max_bytes=16 * 1_048_576)
        self.supply = Supply(
            store=self.flaky,  # type: ignore[arg-type]
            counters=counters,
            registry=self.registry,
            lease=lease,
            clock=self.clock,
            catalog=catalog,
            worker_id="me",
            wake_client=self.wake_client,
        )
        self.consumer = JobConsumer(self.broker, "default", self.supply)

    def post(self, count: int = 1, **event: Any) -> list[str]:
        """New jobs with their messages; their ids."""
        ids = accept_many(self.store, count, **event)
        self.send(*ids, **event)
        return ids

    def send(self, *ids: str, **of: Any) -> None:
        wanted = {k: v for k, v in of.items() if k in ("type", "priority")}
        self.broker.enqueue_many([make_hint(job_id=i, **wanted) for i in ids])

    def push(self, data: bytes | None, key: str = "junk.1") -> None:
        """A message as somebody else may have put it there."""
        if data is not None:
            self.broker.client.hset("dramatiq:default.msgs", key, data)
        self.broker.client.rpush("dramatiq:default", key)

    def forge(self, *, key: str = "forged.1", **over: Any) -> None:
        self.push(a_message(**over), key)

    def look(self) -> list[MessageProxy]:
        """All that one look brings; it doesn't wait."""
        found = []
        self.consumer._idle = False
        message = next(self.consumer)
        while message is not None:
            found.append(message)
            message = self.consumer._ready.popleft() if self.consumer._ready else None
        return found

    def jobs(self) -> list[str]:
        return [m.args[0] for m in self.look()]

    def held(self, job_id: str) -> Held | None:
        """The job as this process holds it."""
        return next((h for h in self.registry.held_longer_than(0) if h.job.id == job_id), None)

    @property
    def unacked(self) -> int:
        return int(self.broker.client.hlen("dramatiq:default.msgs"))

    @property
    def waiting(self) -> int:
        return sum(self.broker.client.llen(k) for k in self.broker.list_keys("default"))  # type: ignore[misc]


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(
    settings: Settings, store: JobStore, counters: Counters, redis_connection: redis.Redis
) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(*types: Any, threads: int = 4) -> Bench:
        bench = Bench(settings, store, counters, make_catalog(types or [EMAIL]), threads)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.broker.close()
        bench.wake_client.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()


def status(bench: Bench, job_id: str) -> tuple[str, int]:
    document = bench.store.requests.get(job_id)
    return document["status"], document["attempts"]


# messages


def test_what_is_fetched_together_is_claimed_together(bench: Bench) -> None:
    ids = bench.post(10)
    assert bench.jobs() == ids
    assert {status(bench, i) for i in ids} == {("processing", 1)}
    assert len(bench.registry) == 10
    keys = [held.message_key or b"" for held in bench.registry.held_longer_than(0)]
    assert [key.partition(b".")[0].decode() for key in keys] == ids


def test_a_claimed_jobs_message_stays_until_its_outcome_is_written(bench: Bench) -> None:
    bench.post()
    (message,) = bench.look()
    bench.consumer.ack(message)
    bench.consumer.nack(message)
    bench.consumer.requeue([message])
    assert (bench.unacked, bench.waiting) == (1, 0)


def test_ten_messages_for_one_job_are_one_run(bench: Bench) -> None:
    (job_id,) = bench.post()
    bench.send(*[job_id] * 9)
    assert bench.jobs() == [job_id]
    assert bench.unacked == 1
    bench.send(*[job_id] * 5)
    assert bench.jobs() == []
    assert bench.unacked == 1


def test_messages_for_jobs_that_do_not_wait_are_done_with(bench: Bench) -> None:
    running, over, future = (
        claimed(bench.store),
        claimed(bench.store),
        accept(bench.store, delay_ms=86_400_000),
    )
    finish(bench.store, over)
    bench.send(running.id, over.id, future["_id"], make_hint().job_id)
    assert bench.jobs() == []
    assert bench.unacked == 0
    assert status(bench, future["_id"]) == ("pending", 0)


def test_a_cancelled_jobs_message_is_done_with(bench: Bench) -> None:
    (job_id,) = bench.post()
    bench.store.requests.cancel(job_id, NOW)
    assert bench.jobs() == []
    assert bench.unacked == 0


# junk


def a_message(**over: Any) -> bytes:
    fields = {"queue_name": "default", "actor_name": "email", "args": [], "kwargs": {}}
    return json.dumps(fields | {"options": {}, "message_id": "m"} | over).encode()


JUNK: dict[str, bytes | None] = {
    "nothing": None,
    "no JSON": b"{",
    "a pickle": b"\x80\x04K\x01.",
    "no object": b"[1]",
    "empty object": b"{}",
    "invalid UTF-8": b'"\xff"',
    "deep": b"[" * 5_000,
    "an unknown field": a_message(args=["a"], x=1),
    "args are null": a_message(args=None),
    "args are a number": a_message(args=5),
    "no args": a_message(),
    "an argument too many": a_message(args=["a", "b"]),
    "an id that is no text": a_message(args=[{"$gt": ""}]),
    "options are a list": a_message(args=["a"], options=[]),
    "an unknown actor": a_message(args=["a"], actor_name="gone"),
    "an actor that is no text": a_message(args=["a"], actor_name=["email"]),
    "another queue": a_message(args=["a"], queue_name="mail"),
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_is_put_aside_and_counted_and_its_neighbours_run(bench: Bench, name: str) -> None:
    before = bench.post(2)
    bench.push(JUNK[name])
    after = bench.post(2)
    assert sorted(bench.jobs()) == sorted([*before, *after])
    assert bench.unacked == 4
    assert eventually(lambda: bench.counters.read() == {"_worker": {"junk": 1}})
    kept = bench.broker.client.zrange("dramatiq:default.XQ", 0, -1)
    assert kept == ([] if JUNK[name] is None else [b"junk.1"])
    assert bench.jobs() == []


@pytest.mark.parametrize(
    "forged",
    [
        {"options": {"eta": 99_999_999_999_999}},
        {"options": {"eta": "soon"}},
        {"options": {"time_limit": "x", "retries": "y", "max_age": 1}},
        {"options": {"pipe_target": {}, "on_retry_exhausted": "other"}},
        {"kwargs": {"x": 1}},
        {"message_id": {"$gt": 1}, "message_timestamp": "x"},
    ],
)
def test_nothing_in_a_forged_message_keeps_its_job_from_running(
    bench: Bench, forged: dict[str, Any]
) -> None:
    job_id = accept(bench.store)["_id"]
    bench.forge(**({"args": [job_id]} | forged))
    (message,) = bench.look()
    assert (message.args, message.kwargs) == ((job_id,), {})
    assert not {"eta", "retries", "pipe_target", "max_age"} & message.options.keys()
    assert isinstance(message.options["time_limit"], int)


def test_a_message_that_lies_about_its_jobs_type_starts_it_as_what_it_is(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(EMAIL, REPORT)
    job_id = accept(bench.store, type="report")["_id"]
    bench.forge(args=[job_id])
    assert bench.jobs() == [job_id]
    held = bench.held(job_id)
    assert held is not None
    assert held.type.name == "report"


def test_a_job_of_a_type_unknown_here_goes_back_whatever_its_message_says(bench: Bench) -> None:
    job_id = accept(bench.store, type="newer")["_id"]
    bench.forge(args=[job_id])
    assert bench.jobs() == []
    assert status(bench, job_id) == ("pending", 0)
    assert (bench.unacked, len(bench.registry)) == (0, 0)


def test_a_job_of_a_type_unknown_here_that_was_to_be_cancelled_is_counted_as_cancelled(
    bench: Bench,
) -> None:
    """The request came right behind its claim."""
    job_id = accept(bench.store, type="newer")["_id"]
    bench.forge(args=[job_id])
    bench.flaky.cancel_after_claim = True
    assert bench.jobs() == []
    assert status(bench, job_id) == ("cancelled", 0)
    expected = {"newer": {"cancelled": 1}}
    assert eventually(lambda: bench.counters.read() == expected), bench.counters.read()


# other messages


def test_other_actors_messages_are_acked_here(bench: Bench) -> None:
    bench.forge(actor_name="other", args=[1, 2])
    (message,) = bench.look()
    assert message.args == (1, 2)
    assert bench.unacked == 1
    bench.consumer.ack(message)
    assert bench.unacked == 0


def test_other_actors_messages_go_back_when_the_consumer_closes(bench: Bench) -> None:
    for number in range(2):
        bench.forge(actor_name="other", args=[number], key=f"forged.{number}")
    assert next(bench.consumer) is not None
    bench.consumer.close()
    assert (bench.waiting, bench.unacked) == (1, 2)


def test_a_consumer_that_is_started_anew_goes_on_with_the_jobs_of_the_former(bench: Bench) -> None:
    ids = bench.post(3)
    first = next(bench.consumer)
    bench.consumer.close()
    bench.consumer = JobConsumer(bench.broker, "default", bench.supply)
    rest = bench.jobs()
    assert first is not None
    assert sorted([first.args[0], *rest]) == sorted(ids)


# how many


def test_slow_jobs_are_held_no_more_than_there_are_threads(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, threads=4)
    ids = bench.post(10, type="slow")
    assert bench.jobs() == ids[:4]
    assert bench.waiting == 6


def test_a_type_that_holds_its_share_leaves_room_for_another(make_bench: MakeBench) -> None:
    bench = make_bench(EMAIL, REPORT)  # 24 of 40 for one of them
    emails = bench.post(30)
    report = bench.post(1, type="report")
    assert bench.jobs() == emails[:24]
    grow_old(bench)
    assert bench.jobs() == report
    assert bench.waiting == 7  # the report's own message is a duplicate now
    bench.registry.remove([h for i in emails[:24] if (h := bench.held(i)) is not None])
    assert bench.jobs() == emails[24:]
    assert bench.waiting == 0


def test_jobs_beside_a_slow_type_are_looked_for_now_and_then(make_bench: MakeBench) -> None:
    bench = make_bench(EMAIL, REPORT)
    bench.post(30)
    assert len(bench.jobs()) == 24
    grow_old(bench)
    assert bench.jobs() == []
    report = bench.post(1, type="report")
    found: list[str] = []
    eventually(lambda: found.extend(bench.jobs()) or found == report)


def test_where_nothing_waits_a_slow_type_keeps_nobody_from_waking(make_bench: MakeBench) -> None:
    bench = make_bench(EMAIL, REPORT)
    bench.post(24)
    assert len(bench.jobs()) == 24
    grow_old(bench)
    bench.consumer._idle = True
    report = bench.post(1, type="report")
    message = next(bench.consumer)
    assert message is not None
    assert [message.args[0]] == report


def test_jobs_that_find_no_room_are_not_looked_at_again_and_again(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, EMAIL, threads=2)
    bench.post(30, type="slow")
    looks = 0
    fetch = bench.broker.fetch

    def counted(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return fetch(*args)

    bench.broker.fetch = counted  # type: ignore[method-assign]
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        bench.look()
    assert looks <= 12
    assert bench.waiting == 28


def test_what_finds_no_room_returns_to_where_it_was(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, EMAIL, threads=2)  # for threads, and not
    slow = bench.post(5, type="slow", priority="high")
    emails = bench.post(2)
    assert set(bench.jobs()) == {*slow[:2], *emails}
    lists = [bench.broker.client.lrange(k, 0, -1) for k in bench.broker.list_keys("default")]
    assert [[key.partition(b".")[0].decode() for key in keys] for keys in lists] == [
        slow[2:],
        [],
        [],
    ]


def grow_old(bench: Bench) -> None:
    """All that is held was claimed a second ago."""
    for held in bench.registry._held.values():
        held.since -= 1.0


def test_without_room_nothing_is_fetched(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, threads=1)
    bench.post(3, type="slow")
    assert len(bench.jobs()) == 1
    began = time.monotonic()
    assert bench.jobs() == []
    assert 0.5 < time.monotonic() - began < 3  # it waits for room
    assert bench.waiting == 2


def test_an_outcome_makes_room_at_once(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, threads=1)
    first, second = bench.post(2, type="slow")
    assert bench.jobs() == [first]
    held = bench.held(first)
    assert held is not None
    threading.Timer(0.05, bench.registry.remove, [[held]]).start()
    began = time.monotonic()
    bench.look()
    assert time.monotonic() - began < 0.5
    assert bench.jobs() == [second]


@pytest.mark.parametrize("reason", ["draining", "lapsed"])
def test_a_worker_that_stops_or_is_taken_for_dead_claims_nothing(bench: Bench, reason: str) -> None:
    (job_id,) = bench.post()
    if reason == "draining":
        bench.supply.draining.set()
    else:
        bench.supply.lease.renew(time.monotonic() - 601)
    assert bench.jobs() == []
    assert bench.waiting == 1
    assert status(bench, job_id) == ("pending", 0)


# waiting


@pytest.mark.parametrize("source", ["messages", "a message that wakes", "mongodb", "suspects"])
def test_a_worker_told_to_stop_while_it_waits_for_its_claim_claims_nothing(
    bench: Bench, source: str
) -> None:
    job_id = suspect(bench) if source == "suspects" else bench.post()[0]
    if source == "mongodb":
        bench.supply.redis_away.set()
    found: list[MessageProxy] = []

    def look() -> None:
        bench.consumer._idle = source == "a message that wakes"
        found.extend([m for m in (next(bench.consumer), next(bench.consumer)) if m is not None])

    with bench.supply.alone:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(0.3)
        bench.supply.draining.set()
    thread.join(10)
    assert found == []
    assert status(bench, job_id)[0] == "pending"
    assert len(bench.registry) == 0
    if source != "suspects":
        assert bench.waiting == 1


def test_an_idle_consumer_wakes_for_a_message_at_once(bench: Bench) -> None:
    assert bench.jobs() == []
    latencies = []
    for _ in range(10):
        sent: list[float] = []
        threading.Timer(
            0.02, lambda sent=sent: (sent.append(time.monotonic()), bench.post())
        ).start()
        bench.consumer._idle = True
        message = next(bench.consumer)
        latencies.append(time.monotonic() - sent[0])
        assert message is not None
    assert sorted(latencies)[5] < 0.2


def test_an_idle_consumer_does_not_poll(bench: Bench, redis_connection: redis.Redis) -> None:
    assert bench.jobs() == []
    thread = threading.Thread(target=lambda: next(bench.consumer), daemon=True)
    before = redis_connection.info("stats")["total_commands_processed"]
    thread.start()
    time.sleep(0.5)  # the thing itself: nothing happens for a while
    after = redis_connection.info("stats")["total_commands_processed"]
    assert after - before < 6
    bench.post()
    thread.join(5)
    assert not thread.is_alive()


def test_a_blocked_consumer_is_woken_to_stop(bench: Bench) -> None:
    assert bench.jobs() == []
    thread = threading.Thread(target=lambda: next(bench.consumer), daemon=True)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    bench.supply.draining.set()
    bench.wake_client.connection_pool.disconnect(inuse_connections=True)
    thread.join(5)
    assert not thread.is_alive()


# straight from MongoDB


def test_while_redis_is_away_jobs_come_from_mongodb_by_priority(bench: Bench) -> None:
    low = accept(bench.store, priority="low")["_id"]
    normal = accept_many(bench.store, 3)
    high = accept(bench.store, priority="high")["_id"]
    accept(bench.store, type="unknown")
    accept(bench.store, queue="mail")
    accept(bench.store, delay_ms=86_400_000)
    bench.supply.redis_away.set()
    assert sorted(bench.jobs()) == sorted([high, *normal, low])
    held = bench.held(low)
    assert held is not None
    assert held.message_key is None
    assert bench.jobs() == []


def test_while_redis_is_away_a_full_type_is_waited_for_and_not_slept_over(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(SLOW, EMAIL, threads=2)
    bench.supply.redis_away.set()
    accept_many(bench.store, 4, type="slow")
    sleeps: list[float] = []
    monkeypatch.setattr(bench.consumer, "_wait", sleeps.append)
    done = 0
    while done < 4:
        done += len(bench.look())
        held = bench.registry.held_longer_than(0)
        threading.Timer(0.15, bench.registry.remove, [held]).start()
    assert sleeps == []


def test_a_redis_that_fails_is_noticed_and_jobs_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = accept_many(bench.store, 1)

    def fail(*_: Any, **__: Any) -> Any:
        raise redis.TimeoutError("as asked")

    monkeypatch.setattr(bench.broker, "fetch", fail)
    assert bench.jobs() == []
    assert bench.supply.redis_away.is_set()
    assert bench.jobs() == [job_id]


def test_what_found_no_room_in_redis_comes_from_mongodb_oldest_first(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(SLOW, threads=60)
    ids = bench.post(80, type="slow")
    assert bench.waiting == 50
    assert bench.jobs() == ids[:50]
    assert bench.jobs() == ids[50:60]
    assert bench.broker.has_overflow("default")


def test_the_overflow_is_over_when_nothing_is_left_in_mongodb(bench: Bench) -> None:
    bench.broker.client.set(bench.broker.overflow_key("default"), "1")
    assert bench.jobs() == []
    assert not bench.broker.has_overflow("default")


def test_a_job_that_comes_just_before_the_overflow_is_over_is_taken_too(bench: Bench) -> None:
    bench.broker.set_overflow("default")
    found, late = bench.store.waiting.due, list[str]()

    def due(*args: Any, **options: Any) -> Any:
        answer = found(*args, **options)
        if not late:
            late.extend(bench.post())  # the overflow is set: it gets no message
        return answer

    bench.store.waiting.due = due  # type: ignore[attr-defined]
    assert bench.jobs() == late
    assert bench.broker.has_overflow("default")


def test_the_overflow_goes_on_while_a_type_was_left_out_of_the_look(make_bench: MakeBench) -> None:
    bench = make_bench(SLOW, EMAIL, threads=2)
    ids = bench.post(2, type="slow")
    bench.broker.client.flushall()
    assert set(bench.jobs()) <= set(ids)
    bench.broker.set_overflow("default")
    accept_many(bench.store, 3, type="slow")
    found = bench.store.waiting.due

    def due(*args: Any, **options: Any) -> Any:
        answer = found(*args, **options)
        bench.registry.remove(bench.registry.held_longer_than(0))  # in that moment
        return answer

    bench.store.waiting.due = due  # type: ignore[attr-defined]
    bench.supply.registry.add([make_held(SLOW), make_held(SLOW)])
    bench.look()
    assert bench.broker.has_overflow("default")


def test_workers_look_at_different_parts_of_the_backlog(make_bench: MakeBench) -> None:
    benches = [make_bench(SLOW, threads=10) for _ in range(2)]
    ids = accept_many(benches[0].store, 20, type="slow")
    for number, bench in enumerate(benches):
        bench.supply.redis_away.set()
        bench.supply.position = (number, 2)
    second = benches[1].jobs()
    assert second == ids[10:]
    assert benches[0].jobs() == ids[:10]


def test_a_part_of_the_backlog_that_is_empty_is_left_for_the_beginning(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(SLOW, threads=10)
    ids = accept_many(bench.store, 5, type="slow")
    bench.supply.redis_away.set()
    bench.supply.position = (3, 4)
    assert bench.jobs() == ids


def test_a_saturated_type_is_not_asked_for(make_bench: MakeBench) -> None:
    bench = make_bench(EMAIL, REPORT)
    bench.post(24)
    assert len(bench.jobs()) == 24
    accept_many(bench.store, 30)
    report = accept(bench.store, type="report")["_id"]
    bench.supply.redis_away.set()
    assert bench.jobs() == [report]


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
    held = bench.jobs()
    assert len(held) == 16
    assert bench.registry.room(EMAIL) <= 1
    others = [job_id for job_id in ids if job_id not in held]
    assert {(d["status"], d["attempts"]) for d in map(bench.store.requests.get, others)} == {
        ("pending", 0)
    }
    assert bench.waiting == (20 if redis_away else 4)


def test_large_jobs_are_asked_for_one_by_one_once_their_size_is_known(bench: Bench) -> None:
    bench.post(10, payload=LARGE)
    bench.post(10, payload=LARGE)
    for job_id in bench.jobs()[:2]:
        bench.registry.remove([bench.held(job_id)])  # type: ignore[list-item]
    assert bench.registry.room(EMAIL) == 2
    assert len(bench.jobs()) == 2


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
    other = bench.post()
    assert bench.jobs() == [job_id]
    assert len(bench.registry) == 1
    assert bench.waiting == 1
    held = bench.held(job_id)
    assert held is not None
    bench.registry.remove([held])
    assert bench.jobs() == []
    assert not bench.supply.suspects_wait.is_set()
    assert bench.jobs() == other


def test_suspects_go_in_the_company_that_they_may_have(bench: Bench) -> None:
    crowd = [suspect(bench, company=15) for _ in range(3)]
    lone = suspect(bench)
    assert set(bench.jobs()) < set(crowd)
    assert len(bench.registry) == 2
    assert bench.held(lone) is None


def test_nothing_joins_a_suspect_in_its_first_moments(bench: Bench) -> None:
    job_id = suspect(bench)
    assert bench.jobs() == [job_id]
    bench.supply.suspects_wait.clear()
    bench.post()
    joined: list[Any] = []
    thread = threading.Thread(target=lambda: joined.extend(bench.look()))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert joined == []
    held = bench.held(job_id)
    assert held is not None
    bench.registry.remove([held])
    thread.join(5)
    assert len(joined) == 1


def test_a_suspect_that_waits_for_its_backoff_keeps_nobody_waiting(bench: Bench) -> None:
    job_id = suspect(bench)
    (job,) = bench.store.claims.claim_suspects([job_id], "w", NOW)
    finish(bench.store, job, Outcome.ERROR, at=bench.clock.now(), delay_ms=300_000)
    other = bench.post()
    bench.look()
    assert bench.jobs() == other


# MongoDB is away


def test_messages_of_a_failed_claim_are_there_again(bench: Bench) -> None:
    ids = bench.post(3)
    bench.flaky.lose = "claim"
    assert bench.jobs() == []
    assert bench.waiting == 3
    assert bench.broker.client.exists(bench.broker.acks_key("default")) == 0
    assert bench.jobs() == ids


def test_a_claim_whose_reply_was_lost_is_found_and_given_back(bench: Bench) -> None:
    ids = bench.post(3)
    bench.flaky.lose = "reply"
    assert bench.jobs() == []
    assert {status(bench, i) for i in ids} == {("processing", 1)}
    assert time.monotonic() < bench.supply.doubtful_until
    hints = release_unheld(bench.supply)
    assert sorted(h.job_id for h in hints) == sorted(ids)
    assert {status(bench, i) for i in ids} == {("pending", 0)}
    assert sorted(bench.jobs()) == sorted(ids)


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
    with bench.supply.alone:
        assert release_unheld(bench.supply) == []
    assert len(release_unheld(bench.supply)) == 1


# how far it has come


def test_a_priority_with_less_than_other_workers_part_of_it_is_not_passed_over(
    bench: Bench,
) -> None:
    due = DueJobs(bench.supply, "default")
    bench.supply.position = (1, 2)
    types = [t.name for t in bench.supply.catalog]
    high = accept(bench.store, priority="high")["_id"]
    for _ in range(3):
        accept(bench.store)
    for _ in range(2):
        assert high in [h.job_id for h in due.oldest(types, [1, 1, 0], 2)]


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


def test_a_priority_that_had_nothing_is_passed_over_for_a_moment_where_another_has_something(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    due, asked = DueJobs(bench.supply, "default"), []
    look = bench.store.waiting.due
    monkeypatch.setattr(
        bench.store.waiting,
        "due",
        lambda q, p, *a, **more: asked.append(p) or look(q, p, *a, **more),
    )
    types = [t.name for t in bench.supply.catalog]
    normal = accept(bench.store)["_id"]
    for _ in range(2):
        assert [h.job_id for h in due.oldest(types, [1, 1, 1], 3)] == [normal]
    assert asked == ["high", "normal", "low", "normal"]
    claim(bench.store, normal)  # and nothing is missed where only what was passed over has some
    high = accept(bench.store, priority="high")["_id"]
    assert [h.job_id for h in due.oldest(types, [1, 1, 1], 3)] == [high]
