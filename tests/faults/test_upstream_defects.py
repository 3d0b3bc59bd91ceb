"""Defects of plain Dramatiq 2.2 that would break a promise here: each is shown on plain Dramatiq
(where a later version has mended it, the test says so by failing), and each is absent here.

Not shown, since plain Dramatiq takes minutes to show it: messages of a killed worker wait for its
maintenance by chance (here: `test_worker_faults`), and a message that kills its process is
redelivered for ever (here: `test_hostile_jobs`).
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError

from infra.servers import RedisServer
from tests.faults.stack import Stack
from tests.faults.waiting import eventually

pytestmark = pytest.mark.filterwarnings("ignore")  # threads of plain Dramatiq die in here
QUEUE = "plain"


@pytest.fixture(scope="module")
def plain_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of these tests' own: they kill it."""
    with RedisServer(tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture
def plain(plain_redis: RedisServer) -> Iterator[RedisBroker]:
    """Plain Dramatiq as it comes."""
    broker = RedisBroker(url=plain_redis.url)
    broker.client.flushall()
    yield broker
    broker.close()


@contextmanager
def working(broker: RedisBroker, threads: int = 1) -> Iterator[dramatiq.Worker]:
    broker.emit_after("process_boot")
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(timeout=2_000)


def actor(broker: RedisBroker, function: Any, **options: Any) -> Any:
    return dramatiq.actor(broker=broker, queue_name=QUEUE, **options)(function)


def stored(broker: RedisBroker) -> int:
    """Messages that Redis has of the queue, whatever their state: waiting, delayed, dead."""
    client = broker.client
    keys = [key for key in client.keys("dramatiq:*") if client.type(key) == b"hash"]
    return sum(client.hlen(key) for key in keys) + client.zcard(f"dramatiq:{QUEUE}.XQ")


def test_plain_dramatiq_loses_a_message_whose_retry_cant_be_enqueued(plain: RedisBroker) -> None:
    """Pull request 545."""
    runs: list[int] = []
    enqueue = plain.enqueue

    def failing(message: Any, *, delay: int | None = None) -> Any:
        if delay is not None:
            raise BrokerConnectionError("Redis is away for a moment")
        return enqueue(message)

    plain.enqueue = failing  # type: ignore[method-assign]

    def fails() -> None:
        runs.append(1)
        raise RuntimeError

    message = actor(plain, fails, max_retries=5, min_backoff=10, max_backoff=10)
    with working(plain):
        message.send()
        eventually(lambda: runs and stored(plain) == 0, "it is gone")
    assert len(runs) == 1


def test_a_retry_while_redis_is_away_is_not_lost_here(stack: Stack) -> None:
    event = stack.api.post("journal.sync", {"duration_ms": 400, "fail_times": 2})
    stack.wait_held(event)
    stack.redis_proxy.refuse()
    seen = stack.api.wait_final(event)
    assert [e["outcome"] for e in seen["history"]] == ["error", "error", "completed"]


def test_plain_dramatiq_s_time_limit_can_strike_in_the_retry(plain: RedisBroker) -> None:
    """Issue 445: the message is acked without its retry, and the thread is dead."""
    enqueue = plain.enqueue

    def slow(message: Any, *, delay: int | None = None) -> Any:
        end = time.monotonic() + (1.5 if delay is not None else 0)
        while time.monotonic() < end:
            time.sleep(0.01)
        return enqueue(message, delay=delay)

    plain.enqueue = slow  # type: ignore[method-assign]

    def fails_at_its_limit() -> None:
        end = time.monotonic() + 0.35
        while time.monotonic() < end:
            time.sleep(0.01)
        raise RuntimeError

    message = actor(plain, fails_at_its_limit, time_limit=400, max_retries=5, min_backoff=10)
    with working(plain) as worker:
        message.send()
        eventually(lambda: not worker.workers[0].is_alive(), "its thread is dead")
        assert stored(plain) == 0


def test_a_time_limit_that_strikes_as_a_run_fails_loses_nothing_here(stack: Stack) -> None:
    payload = {"duration_ms": 300, "fail_times": 1}
    events = [
        stack.api.post("journal.sync", dict(payload), time_limit_ms=300 + 4 * n, max_attempts=2)
        for n in range(25)
    ]
    for event in events:
        seen = stack.api.wait_final(event, within=20)
        assert len(seen["history"]) == seen["attempts"] == 2, seen
    after = [stack.api.post("journal.sync", {"duration_ms": 100}) for _ in range(16)]
    for event in after:
        assert stack.api.wait_final(event)["status"] == "completed"


def test_plain_dramatiq_swallows_a_callback_that_does_not_exist(plain: RedisBroker) -> None:
    def fails() -> None:
        raise RuntimeError

    message = actor(plain, fails, max_retries=0, on_retry_exhausted="nobody")
    with working(plain):
        message.send()
        eventually(lambda: plain.client.zcard(f"dramatiq:{QUEUE}.XQ") == 1, "nobody complains")


def test_a_dead_letter_that_cant_be_sent_arrives_later_here(stack: Stack) -> None:
    event = stack.api.post("journal.sync", {"reject": True, "duration_ms": 300})
    stack.wait_held(event)
    stack.redis_proxy.refuse()
    assert stack.api.wait_final(event)["error"]["reason"] == "rejected"
    assert "dead_lettered_at" not in stack.document(event)
    stack.redis_proxy.flow()
    eventually(lambda: "dead_lettered_at" in stack.document(event), "it arrives", within=12)


@pytest.mark.soak
def test_plain_dramatiq_loses_track_of_delayed_messages_after_a_lost_connection(
    plain: RedisBroker, plain_redis: RedisServer
) -> None:
    """Issue 527: they are stuck until the process ends."""
    ran = threading.Event()
    message = actor(plain, ran.set)
    with working(plain):
        message.send_with_options(delay=1_500)
        delayed = f"dramatiq:{QUEUE}.DQ"
        eventually(lambda: plain.client.llen(delayed) == 0, "the worker has it in its memory")
        plain_redis.kill()
        time.sleep(0.5)  # an outage, not a wait
        plain_redis.start()
        assert not ran.wait(4)


def test_a_delayed_event_runs_in_time_though_redis_died_here(stack: Stack) -> None:
    event = stack.api.post("journal.sync", delay_ms=2_000)
    posted = time.monotonic()
    stack.redis.kill()
    stack.redis.start()
    stack.api.wait_final(event)
    assert 1.9 < time.monotonic() - posted < 5


def test_plain_dramatiq_strands_the_neighbours_of_a_message_that_cant_be_decoded(
    plain: RedisBroker,
) -> None:
    ran: list[int] = []
    message = actor(plain, ran.append)
    for n in range(5):
        message.send(n)
    plain.client.hset(f"dramatiq:{QUEUE}.msgs", "junk", b"{")
    plain.client.lpush(f"dramatiq:{QUEUE}", "junk")
    with working(plain):
        eventually(lambda: plain.client.llen(f"dramatiq:{QUEUE}") == 0, "all are fetched")
        time.sleep(2)  # long enough for a consumer to restart twice
        assert len(ran) < 5


def test_plain_dramatiq_lets_an_ack_go_that_gets_no_answer_in_time(plain: RedisBroker) -> None:
    ran = threading.Event()
    done = plain.do_ack

    def late(*args: Any) -> Any:
        plain.do_ack = done  # type: ignore[method-assign]
        raise redis.TimeoutError

    plain.do_ack = late  # type: ignore[method-assign]
    message = actor(plain, ran.set)
    with working(plain):
        message.send()
        assert ran.wait(5)
        time.sleep(1)  # long enough to see that it is not tried again
        assert stored(plain) == 1


def test_plain_dramatiq_charges_a_retry_for_a_shutdown(plain: RedisBroker) -> None:
    began = threading.Event()

    def long() -> None:
        began.set()
        while True:
            time.sleep(0.01)

    message = actor(plain, long, notify_shutdown=True, min_backoff=60_000)
    with working(plain):
        message.send()
        assert began.wait(5)
    [kept] = plain.client.hvals(f"dramatiq:{QUEUE}.DQ.msgs")
    assert dramatiq.Message.decode(kept).options["retries"] == 1


def test_an_idle_worker_starts_an_event_at_once_here(stack: Stack) -> None:
    """Plain Dramatiq's idle polling costs half a second in the mean."""
    waits = []
    for _ in range(10):
        posted = time.monotonic()
        event = stack.api.post("journal.async")
        eventually(lambda e=event: stack.journal.starts(e), every=0.005)
        waits.append(stack.journal.starts(event)[0].at - posted)
        stack.api.wait_final(event)
    assert statistics.median(waits) < 0.1
