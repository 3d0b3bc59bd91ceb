"""The broker on real Redis: hints go to lanes; of other messages the order, and whose they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from infra.servers import free_port
from service.job import Hint
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.queue.lanes import Lane
from service.settings import Settings
from tests.factories import eventually, make_hint

_numbers = count(1)
MakeBroker = Callable[..., PulseBroker]
EMAIL = Lane("default", "email")
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
def own_client(settings: Settings, redis_connection: redis.Redis) -> Iterator[redis.Redis]:
    client = redis_client.connect(settings, timeout_seconds=8)
    yield client
    client.close()


@pytest.fixture
def broker(make_broker: MakeBroker) -> PulseBroker:
    return make_broker()


def hints(many: int, **over: Any) -> list[Hint]:
    return [make_hint(**over) for _ in range(many)]


def send(broker: PulseBroker, many: int, queue: str = "default") -> list[int]:
    """Messages of an actor that is no event type; what tells them apart."""
    numbers = [next(_numbers) for _ in range(many)]
    for number in numbers:
        broker.enqueue(dramatiq.Message(queue, "other", ({"number": number},), {}, {}))
    return numbers


def number_in(data: bytes | None) -> int:
    assert data is not None
    return int(dramatiq.Message.decode(data).args[0]["number"])


def fetch(broker: PulseBroker, most: int = 100) -> list[int]:
    return [number_in(data) for _, data in broker.lists.fetch("default", most)]


def keys_of(broker: PulseBroker, most: int = 100) -> list[bytes]:
    return [key for key, _ in broker.lists.fetch("default", most)]


def ack(broker: PulseBroker, keys: list[bytes]) -> None:
    broker.lists.ack("default", keys)


def acks_key(broker: PulseBroker) -> str:
    return broker.lists.keys.acks(broker.broker_id, "default")


def stored(connection: redis.Redis, queue: str = "default") -> int:
    """Messages that Redis keeps, fetched or not."""
    return int(connection.hlen(f"dramatiq:{queue}.msgs"))


def taken(broker: PulseBroker, lane: Lane = EMAIL) -> list[Hint]:
    return broker.lanes.take({lane: 100}, 100, EVENLY, [lane.queue]).hints


# hints


def test_hints_go_to_their_lanes(broker: PulseBroker, redis_connection: redis.Redis) -> None:
    mine, mail = hints(6), hints(3, queue="mail", type="sms")
    assert broker.enqueue_many([*mine, *mail]) == 9
    assert taken(broker) == mine
    assert taken(broker, Lane("mail", "sms")) == mail
    assert redis_connection.keys("*.msgs") == []


def test_nothing_to_send_is_nothing_sent(broker: PulseBroker) -> None:
    assert broker.enqueue_many([]) == 0


def test_a_message_of_an_event_type_is_a_hint_however_it_is_sent(broker: PulseBroker) -> None:
    hint = make_hint(priority="low")
    sent = dramatiq.Message("default", "email", (hint.job_id,), {}, {"priority": "low"})
    assert broker.enqueue(sent) == sent
    assert taken(broker) == [hint]


def test_a_message_of_any_other_actor_keeps_dramatiqs_lists(make_broker: MakeBroker) -> None:
    broker = make_broker(is_event_type=lambda name: name == "email")
    for actor, args in (("other", (make_hint().job_id,)), ("email", ("no id",)), ("email", ())):
        broker.enqueue(dramatiq.Message("default", actor, args, {}, {}))
    assert len(keys_of(broker)) == 3
    assert broker.lanes.all_hints() == []


# other messages, out and in


def test_messages_arrive_in_order_with_their_content(broker: PulseBroker) -> None:
    sent = send(broker, 5)
    for (key, data), number in zip(broker.lists.fetch("default", 9), sent, strict=True):
        assert data is not None
        message = dramatiq.Message.decode(data)
        assert (message.actor_name, message.args) == ("other", ({"number": number},))
        assert message.options["redis_message_id"] == key.decode()


def test_each_queue_gets_its_own(broker: PulseBroker, redis_connection: redis.Redis) -> None:
    mine = send(broker, 2)
    send(broker, 3, "mail")
    assert fetch(broker) == mine
    assert redis_connection.llen("dramatiq:mail") == 3
    assert (broker.lists.has_messages("mail"), broker.lists.has_messages("default")) == (
        True,
        False,
    )
    assert broker.lists.queues() == ["default", "mail"]


def test_fetching_takes_no_more_than_asked(broker: PulseBroker) -> None:
    sent = send(broker, 5)
    assert fetch(broker, 2) == sent[:2]
    assert fetch(broker, 9) == sent[2:]
    assert fetch(broker) == []


def test_of_many_who_fetch_each_message_goes_to_one(make_broker: MakeBroker) -> None:
    brokers = [make_broker() for _ in range(4)]
    sent = send(brokers[0], 500)
    found: list[list[int]] = [[] for _ in brokers]

    def run(number: int) -> None:
        while got := fetch(brokers[number], 7):
            found[number] += got

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(i for got in found for i in got) == sorted(sent)


def test_a_message_without_content_is_told_from_others(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    redis_connection.rpush("dramatiq:default", "lonely")
    assert broker.lists.fetch("default", 9) == [(b"lonely", None)]


def test_who_waits_for_a_message_is_woken_and_it_stays_where_it_is(
    broker: PulseBroker, own_client: redis.Redis
) -> None:
    """So that nobody holds it who may die before it is known as his."""
    woken: list[bool] = []
    waiter = threading.Thread(
        target=lambda: woken.append(broker.lists.wait(own_client, "default", 5))
    )
    waiter.start()
    sent = send(broker, 1)
    waiter.join(5)
    assert woken == [True]
    assert fetch(broker) == sent
    assert not broker.lists.wait(own_client, "default", 1)


# acks


def test_an_ack_removes_a_message_for_good(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    send(broker, 3)
    keys = keys_of(broker)
    ack(broker, keys[:2])
    assert stored(redis_connection) == 1
    assert redis_connection.smembers(acks_key(broker)) == {keys[2]}
    ack(broker, keys[2:])
    assert redis_connection.exists(acks_key(broker), "dramatiq:default.msgs") == 0


def test_nobody_acks_what_another_fetched(
    make_broker: MakeBroker, redis_connection: redis.Redis
) -> None:
    mine, other = make_broker(), make_broker()
    send(mine, 2)
    keys = keys_of(mine)
    ack(other, keys)
    assert stored(redis_connection) == 2
    ack(mine, keys)
    assert stored(redis_connection) == 0


def test_an_ack_of_what_was_never_fetched_or_is_gone_changes_nothing(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    send(broker, 2)
    waiting = redis_connection.lrange("dramatiq:default", 0, -1)
    ack(broker, [*waiting, b"unknown"])
    assert stored(redis_connection) == 2
    keys = keys_of(broker)
    ack(broker, keys)
    ack(broker, keys)
    assert stored(redis_connection) == 0


def test_messages_given_back_are_there_for_others(make_broker: MakeBroker) -> None:
    mine, other = make_broker(), make_broker()
    sent = send(mine, 3)
    keys = keys_of(mine)
    mine.do_requeue("default", *keys)
    assert fetch(other) == sent
    ack(mine, keys)  # late, and not its own any more


def test_junk_is_kept_where_people_find_it(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    send(broker, 1)
    (key,) = keys_of(broker)
    broker.do_nack("default", key)
    assert stored(redis_connection) == 0
    assert redis_connection.zrange("dramatiq:default.XQ", 0, -1) == [key]


# what the dead left


def hours_ahead(hours: float = 1) -> int:
    return int((time.time() + hours * 3600) * 1000)


def test_what_a_dead_consumer_had_fetched_comes_back(make_broker: MakeBroker) -> None:
    dead, alive = make_broker(), make_broker()
    sent = send(dead, 3)
    fetch(dead)
    assert fetch(alive) == []
    alive.lists.return_from_the_dead(hours_ahead())
    assert sorted(fetch(alive)) == sorted(sent)


def test_what_a_living_consumer_has_fetched_stays_its_own(make_broker: MakeBroker) -> None:
    mine, alive = make_broker(), make_broker()
    send(mine, 3)
    fetch(mine)
    alive.lists.return_from_the_dead(hours_ahead(0))
    assert fetch(alive) == []


def test_a_clock_that_is_off_costs_a_duplicate_and_no_message(
    make_broker: MakeBroker, redis_connection: redis.Redis
) -> None:
    mine, fast = make_broker(), make_broker()
    send(mine, 1)
    (key,) = keys_of(mine)
    fast.lists.return_from_the_dead(hours_ahead())
    ack(mine, [key])
    again = keys_of(fast)
    assert again == [key]
    ack(fast, again)
    assert stored(redis_connection) == 0


# Redis forgets


def test_flushed_scripts_are_loaded_again(
    broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    for _ in range(4):
        redis_connection.script_flush()
        send(broker, 1)
        redis_connection.script_flush()
        (key,) = keys_of(broker)
        redis_connection.script_flush()
        ack(broker, [key])
    assert stored(redis_connection) == 0


def test_a_redis_that_is_away_is_an_error_at_once(redis_connection: redis.Redis) -> None:
    nowhere = Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    broker = PulseBroker(redis_client.connect(nowhere))
    began = time.monotonic()
    for call in (
        lambda: broker.enqueue_many(hints(1)),
        lambda: broker.lists.fetch("default", 1),
        lambda: broker.lists.has_messages("default"),
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
    assert eventually(lambda: taken(broker)) == [hint]
    assert time.monotonic() - began >= 0.1
    assert not redis_connection.keys("*.DQ*")


def test_a_delayed_message_of_another_kind_arrives_as_it_was(broker: PulseBroker) -> None:
    args = ({"args": ["a"]}, {"retries": 1})
    broker.enqueue(dramatiq.Message("default", "dead_letter", args, {}, {"retries": 2}), delay=10)
    ((_, data),) = eventually(lambda: broker.lists.fetch("default", 9))
    assert data is not None
    message = dramatiq.Message.decode(data)
    assert message.args == args
    assert message.options["retries"] == 2


def test_a_hint_that_lies_in_the_past_goes_at_once(broker: PulseBroker) -> None:
    hint = make_hint()
    broker.hint_later(hint, -5)
    assert eventually(lambda: taken(broker)) == [hint]


# many at once


def test_what_is_gathered_is_not_sent_and_only_on_this_thread(broker: PulseBroker) -> None:
    other = dramatiq.Message("default", "email", ("other",), {}, {})
    with broker.outbox.gathering() as gathered:
        broker.enqueue(dramatiq.Message("default", "email", ("a",), {}, {}))
        broker.enqueue(dramatiq.Message("default", "email", ("b",), {}, {}), delay=5)
        thread = threading.Thread(target=broker.enqueue, args=(other,))
        thread.start()
        thread.join(5)
    assert [(m.args, delay) for m, delay in gathered] == [(("a",), None), (("b",), 5)]
    ((_, data),) = broker.lists.fetch("default", 9)
    assert data is not None
    assert dramatiq.Message.decode(data).args == ("other",)
    broker.enqueue(other)
    assert len(broker.lists.fetch("default", 9)) == 1


def test_what_is_sent_together_arrives_each_as_it_was(broker: PulseBroker) -> None:
    sent = [dramatiq.Message("default", "x", ({"n": n},), {}, {"o": n}) for n in range(5)]
    broker.outbox.send_together(sent)
    found = broker.lists.fetch("default", 9)
    messages = [dramatiq.Message.decode(data) for _, data in found if data is not None]
    assert [m.args for m in messages] == [m.args for m in sent]
    assert [m.options["o"] for m in messages] == [0, 1, 2, 3, 4]
    assert [m.options["redis_message_id"].encode() for m in messages] == [key for key, _ in found]


def test_many_delayed_messages_arrive_each_in_its_time(broker: PulseBroker) -> None:
    hints = [make_hint() for _ in range(3)]
    waits = (80, 10, 50)
    broker.outbox.send_later(
        [
            (dramatiq.Message("default", "email", (hint.job_id,), {}, {}), wait)
            for hint, wait in zip(hints, waits, strict=True)
        ]
    )
    arrived: list[Hint] = []
    assert eventually(lambda: arrived.extend(taken(broker)) or len(arrived) == 3)
    assert arrived == [hints[1], hints[2], hints[0]]


# beside plain Dramatiq


def test_plain_dramatiqs_messages_are_fetched_and_its_broker_reads_ours(
    broker: PulseBroker, settings: Settings
) -> None:
    """So that its tools, and `actor.send` of the dead-letter actor, go on working."""
    plain = RedisBroker(client=redis_client.connect(settings))
    plain.enqueue(dramatiq.Message("default", "other", ({"number": 1},), {}, {}))
    assert fetch(broker) == [1]
    (number,) = send(broker, 1)
    consumer = plain.consume("default")
    message = next(consumer)
    assert message is not None
    assert message.args == ({"number": number},)
    plain.close()
    plain.client.close()


def test_no_delay_queue_is_declared(broker: PulseBroker) -> None:
    assert broker.get_declared_queues() == {"default"}
    assert broker.delay_queues == set()
