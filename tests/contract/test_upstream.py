"""What Dramatiq 2.2.1 gets wrong, shown on plain Dramatiq, and that it can't reach us.

Each test runs plain Dramatiq with its `RedisBroker` first, so that it tells when a release has
mended the defect and our way round it may go. Then our worker in the same process, where the defect
can be brought about exactly. The same by real processes and a real outage: test_redis_faults (a
retry, a dead letter, a delay), test_hostile_jobs (time limits), tests/e2e/test_pipeline (idle).

What has no test here, and why it can't reach us:

- After kill -9, recovery is a lottery of minutes. The sweep rescues by heartbeats in MongoDB
  (test_sweep, tests/faults).
- A crash never counts as a retry (issue 213). MongoDB counts claims, and three crashes alone fail a
  job (test_job_store).
- A far-future delayed message holds back near ones. Nothing is delayed in Redis or in a consumer
  (test_broker).
- Promoting a delayed message is enqueue, then ack: duplicates. A duplicate claims nothing
  (test_consumer).
- `TimeLimit` can't interrupt a C call. The watchdog ends the process (tests/faults).
- One process that dies ends all of its master's. One process a master, and a supervisor (Procfile).
- The ack loop ignores a stop while Redis is down. Our consumer's ack gives up at once (below).
- Out of memory, Redis refuses fetch and ack too. Jobs come from MongoDB, and acks may be late
  (tests/faults).
- The `Prometheus` middleware leaks a gauge (issues 672, 703). It is not used.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Retries, TimeLimit

from actors import dead_letter
from service.errors import Reject
from service.queue import redis_client
from service.queue.broker import DEAD_LETTER_ACTOR
from service.queue.message_lists import MessageLists
from service.settings import Settings
from service.store import JobStore
from service.worker.build import build_broker
from service.worker.lifecycle import Lifecycle
from service.worker.process import WorkerProcess
from tests.factories import (
    eventually,
    make_catalog,
    make_hint,
    make_type,
    new_job_document,
)

pytestmark = pytest.mark.filterwarnings(
    # Threads that die are what some of these tests are about.
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)
Handler = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick_and_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers start anew at once, and no watchdog ends the process that runs the tests."""
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.05)
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"exit {code}"))


# plain Dramatiq


@pytest.fixture
def plain(settings: Settings, redis_connection: redis.Redis) -> Iterator[RedisBroker]:
    broker = RedisBroker(client=redis_client.connect(settings), middleware=[])
    yield broker
    broker.close()
    broker.client.close()


@contextlib.contextmanager
def at_work(broker: dramatiq.Broker) -> Iterator[dramatiq.Worker]:
    """A worker of that broker. Started on a thread of its own: signals are for real processes."""
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    on_a_thread(worker.start)
    try:
        yield worker
    finally:
        on_a_thread(lambda: worker.stop(timeout=5_000))


def on_a_thread(call: Callable[[], Any]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def known_to_redis(connection: redis.Redis) -> int:
    """Messages in any of Dramatiq's queues, fetched or delayed ones included."""
    return sum(int(connection.hlen(key)) for key in connection.keys("dramatiq:*.msgs"))  # type: ignore[union-attr]


# ours


class Ours:
    """Our worker in this process, with one event type."""

    def __init__(self, settings: Settings, store: JobStore, handler: Handler) -> None:
        settings = replace(settings, sweep_seconds=0.1, shutdown_grace_seconds=5.0)
        self.store = store
        self.ran: list[float] = []

        def noted(payload: Any, context: Any) -> Any:
            self.ran.append(time.monotonic())
            return handler(payload, context)

        types = make_catalog([make_type("email", noted)])
        self.broker = build_broker(settings, types, dead_letter.declare)
        (self.lifecycle,) = [m for m in self.broker.middleware if isinstance(m, Lifecycle)]

    @property
    def process(self) -> WorkerProcess:
        return self.lifecycle.process

    def post(self, **event: Any) -> str:
        """A new job with its message; its id."""
        document = new_job_document(at=self.process.clock.now(), **event)
        self.store.new_jobs.accept([document])
        job_id: str = document["_id"]
        self.broker.enqueue_many([make_hint(job_id=job_id)])
        return job_id

    def ended(self, job_id: str) -> dict[str, Any] | None:
        document = self.store.requests.get(job_id)
        return document if document["finished_at"] is not None else None

    def close(self) -> None:
        self.process._stores.close()
        self.broker.close()
        self.broker.client.close()


MakeOurs = Callable[[Handler], contextlib.AbstractContextManager[Ours]]


@pytest.fixture
def ours(settings: Settings, redis_connection: redis.Redis, store: JobStore) -> MakeOurs:
    """`with ours(handler) as worker:` runs a worker of ours."""

    @contextlib.contextmanager
    def run(handler: Handler) -> Iterator[Ours]:
        redis_connection.flushall()
        made = Ours(settings, store, handler)
        try:
            with at_work(made.broker):
                yield made
        finally:
            made.close()

    return run


def failing_once(_payload: Any, context: Any) -> str:
    if context.attempt == 1:
        raise dramatiq.Retry("again", delay=1)
    return "done"


# the defects


def test_a_retry_whose_enqueue_fails_is_lost_there_and_run_here(
    plain: RedisBroker,
    ours: MakeOurs,
    redis_connection: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`Retries` enqueues in a hook whose exceptions are swallowed, then the message is acked."""
    ran: list[int] = []

    def refused(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("as asked")

    def act() -> None:
        ran.append(1)
        monkeypatch.setattr(plain, "enqueue", refused)
        raise RuntimeError("as asked")

    plain.add_middleware(Retries(min_backoff=1, max_backoff=1))
    dramatiq.actor(act, broker=plain).send()
    with at_work(plain):
        assert eventually(lambda: ran and known_to_redis(redis_connection) == 0)

    with ours(failing_once) as worker:
        monkeypatch.setattr(worker.broker, "enqueue", refused)
        job_id = worker.post()
        document = eventually(lambda: worker.ended(job_id))
    assert document is not None
    assert (document["status"], document["attempts"]) == ("completed", 2)


def test_a_time_limit_that_strikes_a_retrys_enqueue_kills_a_thread_there_and_nothing_here(
    plain: RedisBroker,
    ours: MakeOurs,
    redis_connection: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Issue 445: in the default order the limit is still on while `Retries` works."""

    def slowed(enqueue: Callable[..., Any]) -> Callable[..., Any]:
        def enqueue_slowly(message: Any, *, delay: int | None = None) -> Any:
            end = time.monotonic() + (0.5 if delay is not None else 0)
            while time.monotonic() < end:
                pass
            return enqueue(message, delay=delay)

        return enqueue_slowly

    plain.add_middleware(TimeLimit(interval=20))
    plain.add_middleware(Retries(min_backoff=1, max_backoff=1))

    def act() -> None:
        raise RuntimeError("as asked")

    actor = dramatiq.actor(act, broker=plain, time_limit=100)
    plain.emit_after("process_boot")
    monkeypatch.setattr(plain, "enqueue", slowed(plain.enqueue))
    actor.send()
    with at_work(plain) as worker:
        eventually(lambda: not all(thread.is_alive() for thread in worker.workers))
        assert known_to_redis(redis_connection) == 0

    with ours(failing_once) as mine:
        mine.broker.emit_after("process_boot")
        monkeypatch.setattr(mine.broker, "enqueue", slowed(mine.broker.enqueue))
        job_id = mine.post(time_limit_ms=100)
        document = eventually(lambda: mine.ended(job_id))
        workers = mine.process._worker.workers
        assert all(thread.is_alive() for thread in workers)
    assert document is not None
    assert document["status"] == "completed"


def test_a_wrong_name_of_a_dead_letter_actor_is_swallowed_there_and_cannot_be_here(
    plain: RedisBroker, ours: MakeOurs, redis_connection: redis.Redis
) -> None:
    plain.add_middleware(Retries(max_retries=0))
    ran: list[int] = []

    def act() -> None:
        ran.append(1)
        raise RuntimeError("as asked")

    dramatiq.actor(act, broker=plain, on_retry_exhausted="no_such_actor").send()
    with at_work(plain):
        assert eventually(lambda: ran and not redis_connection.hlen("dramatiq:default.msgs"))

    def failing(_payload: Any, _context: Any) -> None:
        raise RuntimeError("as asked")

    with ours(failing) as worker:
        for actor in worker.broker.actors.values():
            name = actor.options.get("on_retry_exhausted", DEAD_LETTER_ACTOR)
            assert worker.broker.get_actor(name)
        job_id = worker.post(max_attempts=1)
        assert eventually(lambda: "dead_lettered_at" in worker.store.requests.get(job_id))


def test_a_failure_that_is_not_retried_has_no_dead_letter_there_and_has_one_here(
    plain: RedisBroker, ours: MakeOurs, redis_connection: redis.Redis
) -> None:
    """There the callback is for exhausted retries only, not for `throws`."""
    plain.add_middleware(Retries())
    called: list[Any] = []
    ran: list[int] = []

    def act() -> None:
        ran.append(1)
        raise ValueError("as asked")

    dramatiq.actor(called.append, broker=plain, actor_name="callback")
    dramatiq.actor(act, broker=plain, throws=ValueError, on_retry_exhausted="callback").send()
    with at_work(plain):
        assert eventually(lambda: ran and redis_connection.zcard("dramatiq:default.XQ") == 1)
    assert called == []

    def rejecting(_payload: Any, _context: Any) -> None:
        raise Reject("as asked")

    with ours(rejecting) as worker:
        job_id = worker.post()
        assert eventually(lambda: "dead_lettered_at" in worker.store.requests.get(job_id))


def test_a_message_that_cannot_be_decoded_strands_its_batch_there_and_no_one_here(
    plain: RedisBroker, ours: MakeOurs, redis_connection: redis.Redis
) -> None:
    ran: list[int] = []
    actor = dramatiq.actor(ran.append, broker=plain, actor_name="act")
    plain.do_enqueue("default", "junk", b"{")
    for number in range(3):
        actor.send(number)
    with at_work(plain):
        assert eventually(lambda: redis_connection.llen("dramatiq:default") == 0)
        time.sleep(0.3)  # nothing can be polled for: nothing happens any more
        assert ran == []
        assert known_to_redis(redis_connection) == 4

    with ours(lambda _p, _c: None) as worker:
        worker.broker.do_enqueue("default", "junk", b"{")
        jobs = [worker.post() for _ in range(3)]
        for job_id in jobs:
            assert eventually(lambda job_id=job_id: worker.ended(job_id))


def test_a_delayed_message_is_stuck_after_a_disconnect_there_and_arrives_here(
    plain: RedisBroker,
    ours: MakeOurs,
    redis_connection: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Issue 527: a consumer drops what it holds, and only the end of its process frees it."""
    ran: list[int] = []
    actor = dramatiq.actor(ran.append, broker=plain, actor_name="act")
    with at_work(plain) as worker:
        actor.send_with_options(args=(1,), delay=400)
        eventually(lambda: worker.consumers["default.DQ"].delay_queue.qsize() == 1)

        def disconnected(*_: Any) -> Any:
            raise ConnectionClosed(redis.ConnectionError("as asked"))

        fetch = plain.consumer_class.__next__
        with monkeypatch.context() as broken:
            broken.setattr(plain.consumer_class, "__next__", disconnected)
            eventually(lambda: worker.consumers["default.DQ"].delay_queue.qsize() == 0)
        assert plain.consumer_class.__next__ is fetch
        time.sleep(0.8)  # nothing can be polled for: it never comes
        assert ran == []
        assert redis_connection.hlen("dramatiq:default.DQ.msgs") == 1

    def waits_first(_payload: Any, context: Any) -> str:
        if context.attempt == 1:
            raise dramatiq.Retry("again", delay=400)
        return "done"

    with ours(waits_first) as mine:
        job_id = mine.post()
        eventually(lambda: mine.store.requests.get(job_id)["history"])
        redis_connection.client_kill_filter(_type="normal", skipme=True)
        assert eventually(lambda: mine.ended(job_id))


def test_an_idle_worker_takes_its_time_there_and_none_here(
    plain: RedisBroker, ours: MakeOurs
) -> None:
    """Polling there backs off to a second; ours blocks in Redis."""
    plain.declare_queue("default")
    consumer = plain.consume("default", timeout=1_000)
    consumer.misses = 8  # as after two seconds without a message
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        plain.enqueue(dramatiq.Message("default", "act", (), {}, {}))

    threading.Timer(0.05, send).start()
    while next(consumer) is None:
        pass
    assert time.monotonic() - sent[0] > 0.3

    with ours(lambda _p, _c: None) as mine:
        latencies = []
        for number in range(5):
            time.sleep(0.2)
            posted = time.monotonic()
            mine.post()
            eventually(lambda number=number: len(mine.ran) > number)
            latencies.append(mine.ran[-1] - posted)
    assert sorted(latencies)[2] < 0.1


def test_a_redis_that_does_not_answer_an_ack_is_an_error_there_and_a_duplicate_here(
    plain: RedisBroker, ours: MakeOurs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There only `redis.ConnectionError` is expected, and a time-out is another error."""
    plain.declare_queue("default")
    consumer = plain.consume("default")
    message = dramatiq.broker.MessageProxy(
        dramatiq.Message("default", "act", (), {}, {"redis_message_id": "a"})
    )

    def hangs(*_: Any, **__: Any) -> Any:
        raise redis.TimeoutError("as asked")

    monkeypatch.setattr(plain, "scripts", {"dispatch": hangs})
    with pytest.raises(redis.TimeoutError):
        consumer.ack(message)

    with ours(lambda _p, _c: "done") as worker:
        monkeypatch.setattr(worker.broker, "scripts", {"dispatch": hangs})
        monkeypatch.setattr(MessageLists, "ack", hangs)
        mine = worker.process.consumer(worker.broker, "default")
        for other in (mine.ack, mine.nack):
            other(message)
        mine.requeue([message])
        job_id = worker.post()
        assert eventually(lambda: worker.ended(job_id))
        worker.broker.enqueue_many([make_hint(job_id=job_id)])
        time.sleep(0.2)  # nothing can be polled for: the duplicate should do nothing
        assert len(worker.ran) == 1


def test_a_shutdown_costs_a_retry_there(settings: Settings, redis_connection: redis.Redis) -> None:
    """Here it costs nothing, which real processes show (tests/faults/test_worker_faults.py)."""
    began = threading.Event()

    def long(*_: Any) -> None:
        began.set()
        while True:
            time.sleep(0.01)

    broker = RedisBroker(client=redis_client.connect(settings))
    actor = dramatiq.actor(long, broker=broker, notify_shutdown=True, min_backoff=60_000)
    broker.emit_after("process_boot")
    with at_work(broker):
        actor.send()
        assert began.wait(5)
    [kept] = broker.client.hvals("dramatiq:default.DQ.msgs")
    assert dramatiq.Message.decode(kept).options["retries"] == 1
    broker.close()
    broker.client.close()


def test_a_lost_connection_ends_the_delay_consumers_thread_there_and_none_here(
    plain: RedisBroker, ours: MakeOurs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it promotes a message, fails, and fails again at closing, outside of any `try`."""

    def disconnected(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("as asked")

    actor = dramatiq.actor(lambda: None, broker=plain, actor_name="act")
    with at_work(plain) as worker:
        for delay in (400, 60_000):
            actor.send_with_options(delay=delay)
        thread = worker.consumers["default.DQ"]
        eventually(lambda: thread.delay_queue.qsize() == 2)
        with monkeypatch.context() as broken:
            broken.setattr(plain, "do_enqueue", disconnected, raising=False)
            broken.setattr(plain, "do_requeue", disconnected, raising=False)
            eventually(lambda: not thread.is_alive())

    with ours(lambda _p, _c: "done") as mine:
        job_id = mine.post()
        assert eventually(lambda: mine.ended(job_id))
        with monkeypatch.context() as broken:
            broken.setattr(mine.broker, "scripts", {"dispatch": disconnected})
            broken.setattr(mine.broker.lists, "fetch", disconnected)
            again = mine.post()
            assert eventually(lambda: mine.ended(again))
        threads = mine.process._worker.consumers
        assert all(thread.is_alive() for thread in threads.values())
        assert not [queue for queue in threads if queue.endswith(".DQ")]
