"""The broker on real Redis: the window, the order, and who owns a message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from infra.servers import free_port
from service.job import Hint
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.queue.messages import job_id_of
from service.settings import Settings
from service.worker.maintenance import sweep
from tests.factories import eventually, make_hint

MakeBroker = Callable[..., PulseBroker]
EVENLY = (0, 0, 0)
"""No shares: high before normal before low."""


@pytest.fixture
def make_broker(settings: Settings, redis_connection: redis.Redis) -> Iterator[MakeBroker]:
    """Makes brokers as processes of their own would have them."""
    made: list[PulseBroker] = []

    def make(**options: Any) -> PulseBroker:
        broker = PulseBroker(redis_client.connect(settings), **options)
        broker.declare_queue("default")
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def broker(make_broker: MakeBroker) -> PulseBroker:
    return make_broker()


def hints(count: int, **over: Any) -> list[Hint]:
    return [make_hint(**over) for _ in range(count)]


def ids(of: list[Hint]) -> list[str]:
    return [hint.job_id for hint in of]


def fetch(broker: PulseBroker, most: int = 100, first: Any = EVENLY) -> list[str]:
    """The jobs of the next messages."""
    return [job_id_of(key) for key, _ in broker.fetch("default", most, first).messages]


def keys_of(broker: PulseBroker, most: int = 100) -> list[bytes]:
    return [key for key, _ in broker.fetch("default", most, EVENLY).messages]


def ack(broker: PulseBroker, keys: list[bytes]) -> None:
    pipeline = broker.client.pipeline(transaction=False)
    broker.ack_many(pipeline, "default", keys)
    pipeline.execute()


def stored(connection: redis.Redis, queue: str = "default") -> int:
    """Messages that Redis keeps, fetched or not."""
    return int(connection.hlen(f"dramatiq:{queue}.msgs"))


# out and in


def test_hints_arrive_in_order_with_their_content(broker: PulseBroker) -> None:
    sent = hints(5)
    assert broker.enqueue_many(sent) == 5
    for (key, data), hint in zip(broker.fetch("default", 9, EVENLY).messages, sent, strict=True):
        assert data is not None
        message = dramatiq.Message.decode(data)
        assert (message.actor_name, message.args) == ("email", (hint.job_id,))
        assert message.options["redis_message_id"] == key.decode()


def test_each_queue_gets_its_own(broker: PulseBroker, redis_connection: redis.Redis) -> None:
    mine, mail = hints(2), hints(3, queue="mail")
    assert broker.enqueue_many([*mine, *mail]) == 5
    assert fetch(broker) == ids(mine)
    assert redis_connection.llen("dramatiq:mail") == 3


def test_nothing_to_send_is_nothing_sent(broker: PulseBroker) -> None:
    assert broker.enqueue_many([]) == 0


def test_fetching_takes_no_more_than_asked(broker: PulseBroker) -> None:
    sent = hints(5)
    broker.enqueue_many(sent)
    assert fetch(broker, 2) == ids(sent[:2])
    assert fetch(broker, 9) == ids(sent[2:])
    assert fetch(broker) == []


def test_of_many_who_fetch_each_message_goes_to_one(make_broker: MakeBroker) -> None:
    brokers = [make_broker() for _ in range(4)]
    sent = hints(1_000)
    brokers[0].enqueue_many(sent)
    found: list[list[str]] = [[] for _ in brokers]

    def run(number: int) -> None:
        while got := fetch(brokers[number], 7):
            found[number] += got

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(i for got in found for i in got) == sorted(ids(sent))


def test_a_message_without_content_is_told_from_others(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    redis_connection.rpush("dramatiq:default", "lonely")
    assert broker.fetch("default", 9, EVENLY).messages == [(b"lonely", None)]


def test_a_message_taken_off_its_list_while_waiting_is_fetched_with_the_rest(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    sent = hints(3)
    broker.enqueue_many(sent)
    popped = redis_connection.blpop(broker.list_keys("default"), 1)
    assert popped is not None
    found = broker.fetch("default", 9, EVENLY, popped[1]).messages
    assert [job_id_of(key) for key, _ in found] == ids(sent)
    ack(broker, [key for key, _ in found])
    assert stored(redis_connection) == 0


# priority


def sent_by_priority(broker: PulseBroker, count: int) -> dict[str, list[str]]:
    sent = {p: hints(count, priority=p) for p in ("low", "normal", "high")}
    broker.enqueue_many([hint for group in sent.values() for hint in group])
    return {priority: ids(group) for priority, group in sent.items()}


def test_without_shares_high_goes_first_and_low_last(broker: PulseBroker) -> None:
    sent = sent_by_priority(broker, 2)
    assert fetch(broker) == [*sent["high"], *sent["normal"], *sent["low"]]


def test_shares_are_kept_so_that_nobody_starves(broker: PulseBroker) -> None:
    sent = sent_by_priority(broker, 50)
    found = fetch(broker, 10, (6, 3, 1))
    assert found == [*sent["high"][:6], *sent["normal"][:3], *sent["low"][:1]]


def test_what_a_list_does_not_have_others_may_have(broker: PulseBroker) -> None:
    low = hints(9, priority="low")
    high = hints(2, priority="high")
    broker.enqueue_many([*low, *high])
    assert fetch(broker, 10, (6, 3, 1)) == [*ids(high), *ids(low[:8])]


def test_shares_never_exceed_what_was_asked_for(broker: PulseBroker) -> None:
    sent_by_priority(broker, 50)
    assert len(fetch(broker, 5, (6, 3, 1))) == 5


def test_low_priority_gets_through_while_high_keeps_coming(broker: PulseBroker) -> None:
    low = hints(5, priority="low")
    broker.enqueue_many(low)
    seen: list[str] = []
    for _ in range(5):
        broker.enqueue_many(hints(10, priority="high"))
        seen += fetch(broker, 10, (6, 3, 1))
    assert set(ids(low)) <= set(seen)


# the window


def test_a_queue_holds_a_window_of_messages_and_the_oldest_fit(make_broker: MakeBroker) -> None:
    broker = make_broker(window=10)
    sent = hints(15)
    assert broker.enqueue_many(sent) == 10
    assert broker.has_overflow("default")
    assert fetch(broker) == ids(sent[:10])


def test_a_queue_that_is_exactly_full_has_no_overflow(make_broker: MakeBroker) -> None:
    broker = make_broker(window=10)
    assert broker.enqueue_many(hints(10)) == 10
    assert not broker.has_overflow("default")
    assert broker.enqueue_many(hints(1)) == 0
    assert broker.has_overflow("default")


def test_the_window_is_one_for_all_priorities(make_broker: MakeBroker) -> None:
    broker = make_broker(window=10)
    broker.enqueue_many(hints(8, priority="low"))
    assert broker.enqueue_many(hints(5, priority="high")) == 2


def test_while_more_waits_in_mongodb_nothing_overtakes_it(make_broker: MakeBroker) -> None:
    broker = make_broker(window=10)
    broker.enqueue_many(hints(11))
    fetch(broker)
    assert broker.enqueue_many(hints(5)) == 0
    broker.clear_overflow("default")
    assert broker.enqueue_many(hints(5)) == 5


def test_who_fetches_learns_that_more_waits_in_mongodb(make_broker: MakeBroker) -> None:
    broker = make_broker(window=2)
    broker.enqueue_many(hints(2))
    assert not broker.fetch("default", 1, EVENLY).overflow
    broker.enqueue_many(hints(2))
    assert broker.fetch("default", 1, EVENLY).overflow


def test_overflow_is_by_queue(make_broker: MakeBroker) -> None:
    broker = make_broker(window=2)
    broker.enqueue_many(hints(5))
    assert not broker.has_overflow("mail")
    assert broker.enqueue_many(hints(1, queue="mail")) == 1


def test_redis_memory_is_bounded_however_long_the_backlog_is(
    make_broker: MakeBroker, redis_connection: redis.Redis
) -> None:
    broker = make_broker(window=10_000)
    before = redis_connection.info("memory")["used_memory"]
    for _ in range(60):
        broker.enqueue_many(hints(500))
    grown = redis_connection.info("memory")["used_memory"] - before
    assert stored(redis_connection) == 10_000
    assert grown / 10_000 < 700  # bytes a message


# acks


def test_an_ack_removes_a_message_for_good(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    broker.enqueue_many(hints(3))
    keys = keys_of(broker)
    ack(broker, keys[:2])
    assert stored(redis_connection) == 1
    assert redis_connection.smembers(broker.acks_key("default")) == {keys[2]}
    ack(broker, keys[2:])
    assert redis_connection.exists(broker.acks_key("default"), "dramatiq:default.msgs") == 0


def test_nobody_acks_what_another_fetched(
    make_broker: MakeBroker, redis_connection: redis.Redis
) -> None:
    mine, other = make_broker(), make_broker()
    mine.enqueue_many(hints(2))
    keys = keys_of(mine)
    ack(other, keys)
    assert stored(redis_connection) == 2
    ack(mine, keys)
    assert stored(redis_connection) == 0


def test_an_ack_of_what_was_never_fetched_or_is_gone_changes_nothing(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    broker.enqueue_many(hints(2))
    waiting = redis_connection.lrange("dramatiq:default", 0, -1)
    ack(broker, [*waiting, b"unknown"])
    assert stored(redis_connection) == 2
    keys = keys_of(broker)
    ack(broker, keys)
    ack(broker, keys)
    assert stored(redis_connection) == 0


def test_messages_given_back_are_there_for_others(make_broker: MakeBroker) -> None:
    mine, other = make_broker(), make_broker()
    sent = hints(3)
    mine.enqueue_many(sent)
    keys = keys_of(mine)
    mine.do_requeue("default", *keys)
    assert fetch(other) == ids(sent)
    ack(mine, keys)  # late, and not its own any more


def test_messages_given_back_stand_where_they_stood(broker: PulseBroker) -> None:
    sent = hints(4, priority="high")
    broker.enqueue_many(sent)
    keys = keys_of(broker, 3)
    broker.give_back("default", "high", keys[1:])
    assert fetch(broker) == ids(sent[1:])


def test_what_is_no_longer_ones_own_is_not_given_back(make_broker: MakeBroker) -> None:
    mine, other = make_broker(), make_broker()
    mine.enqueue_many(hints(1))
    keys = keys_of(mine)
    other.give_back("default", "normal", keys)
    assert fetch(other) == []
    mine.give_back("default", "normal", keys)
    mine.give_back("default", "normal", keys)
    assert len(fetch(other)) == 1


def test_a_popped_message_is_forgotten(broker: PulseBroker, redis_connection: redis.Redis) -> None:
    broker.enqueue_many(hints(2))
    key = redis_connection.lpop("dramatiq:default")
    broker.forget_many(redis_connection, "default", [key])  # type: ignore[list-item]
    assert stored(redis_connection) == 1


def test_junk_is_kept_where_people_find_it(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    broker.enqueue_many(hints(1))
    (key,) = keys_of(broker)
    broker.do_nack("default", key)
    assert stored(redis_connection) == 0
    assert redis_connection.zrange("dramatiq:default.XQ", 0, -1) == [key]


# what the dead left


def hours_ahead(hours: float = 1) -> int:
    return int((time.time() + hours * 3600) * 1000)


def test_what_a_dead_consumer_had_fetched_comes_back(make_broker: MakeBroker) -> None:
    dead, alive = make_broker(), make_broker()
    sent = hints(3)
    dead.enqueue_many(sent)
    fetch(dead)
    assert fetch(alive) == []
    sweep.clear_leftovers(alive, hours_ahead())
    assert sorted(fetch(alive)) == sorted(ids(sent))


def test_what_a_living_consumer_has_fetched_stays_its_own(make_broker: MakeBroker) -> None:
    mine, alive = make_broker(), make_broker()
    mine.enqueue_many(hints(3))
    fetch(mine)
    sweep.clear_leftovers(alive, hours_ahead(0))
    assert fetch(alive) == []


def test_a_clock_that_is_off_costs_a_duplicate_and_no_message(
    make_broker: MakeBroker, redis_connection: redis.Redis
) -> None:
    mine, fast = make_broker(), make_broker()
    mine.enqueue_many(hints(1))
    (key,) = keys_of(mine)
    sweep.clear_leftovers(fast, hours_ahead())
    ack(mine, [key])
    again = keys_of(fast)
    assert again == [key]
    ack(fast, again)
    assert stored(redis_connection) == 0


# Redis forgets


def test_flushed_scripts_are_loaded_again(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    sent = hints(4)
    for hint in sent:
        redis_connection.script_flush()
        broker.enqueue_many([hint])
        redis_connection.script_flush()
        (key,) = keys_of(broker)
        assert job_id_of(key) == hint.job_id
        redis_connection.script_flush()
        ack(broker, [key])
    assert stored(redis_connection) == 0


def test_after_flushall_old_acks_do_no_harm_and_new_messages_arrive(
    make_broker: MakeBroker, redis_connection: redis.Redis
) -> None:
    broker = make_broker(window=5)
    broker.enqueue_many(hints(9))
    keys = keys_of(broker)
    redis_connection.flushall()
    assert not broker.has_overflow("default")
    sent = hints(2)
    assert broker.enqueue_many(sent) == 2
    ack(broker, keys)
    assert fetch(broker) == ids(sent)


def test_a_redis_that_is_away_is_an_error_at_once(redis_connection: redis.Redis) -> None:
    nowhere = Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    broker = PulseBroker(redis_client.connect(nowhere))
    began = time.monotonic()
    for call in (
        lambda: broker.enqueue_many(hints(1)),
        lambda: broker.fetch("default", 1, EVENLY),
        lambda: broker.has_overflow("default"),
    ):
        with pytest.raises(redis.RedisError):
            call()
    assert time.monotonic() - began < 2
    broker.close()


# later


def test_a_delayed_message_arrives_in_time_and_never_lies_in_a_delay_queue(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    hint = make_hint(priority="high")
    began = time.monotonic()
    broker.enqueue(
        dramatiq.Message("default", "email", (hint.job_id,), {}, {"priority": "high"}), delay=100
    )
    assert redis_connection.keys("*") == []
    assert eventually(lambda: redis_connection.llen("dramatiq:default:high") == 1)
    assert time.monotonic() - began >= 0.1
    assert not redis_connection.keys("*.DQ*")
    assert fetch(broker) == [hint.job_id]


def test_a_delayed_message_of_another_kind_arrives_as_it_was(broker: PulseBroker) -> None:
    args = ({"args": ["a"]}, {"retries": 1})
    broker.enqueue(dramatiq.Message("default", "dead_letter", args, {}, {"retries": 2}), delay=10)
    ((_, data),) = eventually(lambda: broker.fetch("default", 9, EVENLY).messages)
    assert data is not None
    message = dramatiq.Message.decode(data)
    assert message.args == args
    assert message.options["retries"] == 2


def test_a_hint_that_lies_in_the_past_goes_at_once(broker: PulseBroker) -> None:
    hint = make_hint()
    broker.hint_later(hint, -5)
    assert eventually(lambda: fetch(broker)) == [hint.job_id]


# many at once


def test_what_is_gathered_is_not_sent_and_only_on_this_thread(broker: PulseBroker) -> None:
    other = dramatiq.Message("default", "email", ("other",), {}, {})
    with broker.gathering() as gathered:
        broker.enqueue(dramatiq.Message("default", "email", ("a",), {}, {}))
        broker.enqueue(dramatiq.Message("default", "email", ("b",), {}, {}), delay=5)
        thread = threading.Thread(target=broker.enqueue, args=(other,))
        thread.start()
        thread.join(5)
    assert [(m.args, delay) for m, delay in gathered] == [(("a",), None), (("b",), 5)]
    ((_, data),) = broker.fetch("default", 9, EVENLY).messages
    assert data is not None
    assert dramatiq.Message.decode(data).args == ("other",)
    broker.enqueue(other)
    assert len(broker.fetch("default", 9, EVENLY).messages) == 1


def test_what_is_sent_together_arrives_each_as_it_was(broker: PulseBroker) -> None:
    sent = [dramatiq.Message("default", "x", ({"n": n},), {}, {"o": n}) for n in range(5)]
    broker.enqueue_together(sent)
    found = broker.fetch("default", 9, EVENLY).messages
    messages = [dramatiq.Message.decode(data) for _, data in found if data is not None]
    assert [m.args for m in messages] == [m.args for m in sent]
    assert [m.options["o"] for m in messages] == [0, 1, 2, 3, 4]
    assert [m.options["redis_message_id"].encode() for m in messages] == [key for key, _ in found]


def test_many_delayed_messages_arrive_each_in_its_time(broker: PulseBroker) -> None:
    hints = [make_hint() for _ in range(3)]
    waits = (80, 10, 50)
    broker.enqueue_later(
        [
            (dramatiq.Message("default", "email", (hint.job_id,), {}, {}), wait)
            for hint, wait in zip(hints, waits, strict=True)
        ]
    )
    arrived: list[str] = []
    assert eventually(lambda: arrived.extend(fetch(broker)) or len(arrived) == 3)
    assert arrived == [hints[1].job_id, hints[2].job_id, hints[0].job_id]


# beside plain Dramatiq


def test_plain_dramatiqs_messages_are_fetched_and_its_broker_reads_ours(
    broker: PulseBroker, settings: Settings
) -> None:
    """So that its tools, and `actor.send` of the dead-letter actor, go on working."""
    plain = RedisBroker(client=redis_client.connect(settings))
    plain.enqueue(dramatiq.Message("default", "email", ("a",), {}, {}))
    ((_, data),) = broker.fetch("default", 9, EVENLY).messages
    assert data is not None
    assert dramatiq.Message.decode(data).args == ("a",)
    hint = make_hint()
    broker.enqueue_many([hint])
    consumer = plain.consume("default")
    message = next(consumer)
    assert message is not None
    assert message.args == (hint.job_id,)
    plain.close()
    plain.client.close()


def test_no_delay_queue_is_declared(broker: PulseBroker) -> None:
    assert broker.get_declared_queues() == {"default"}
    assert broker.delay_queues == set()
