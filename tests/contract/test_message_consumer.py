"""The consumer of messages that hint at no job, on real Redis."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.broker import MessageProxy

from service.catalog import Catalog
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.queue.lanes import Lane
from service.settings import Settings
from service.store import Counters
from service.worker.claiming.message_consumer import MessageConsumer
from tests.factories import eventually, make_catalog, make_hint
from tests.former_version import former_hint


@pytest.fixture
def catalog() -> Catalog:
    return make_catalog()


@pytest.fixture
def broker(
    settings: Settings, catalog: Catalog, redis_connection: redis.Redis
) -> Iterator[PulseBroker]:
    broker = PulseBroker(redis_client.connect(settings), is_event_type=catalog.get)
    for name in ("email", "other"):
        dramatiq.actor(broker=broker, actor_name=name)(lambda *_: None)
    yield broker
    broker.close()


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    client = redis_client.connect(settings, timeout_seconds=8, reconnects=0)
    yield client
    client.close()


@pytest.fixture
def draining() -> threading.Event:
    return threading.Event()


@pytest.fixture
def consumer(
    broker: PulseBroker,
    catalog: Catalog,
    counters: Counters,
    client: redis.Redis,
    draining: threading.Event,
) -> MessageConsumer:
    return MessageConsumer(broker, "default", catalog, counters, client=client, draining=draining)


def send(broker: PulseBroker, number: int) -> None:
    broker.get_actor("other").send({"number": number})


def numbers(consumer: MessageConsumer, many: int) -> list[int]:
    return [m.args[0]["number"] for m in messages(consumer, many)]


def messages(consumer: MessageConsumer, many: int) -> list[MessageProxy]:
    found = [next(consumer) for _ in range(many)]
    return [message for message in found if message is not None]


def test_messages_are_consumed_in_order_and_acked(
    consumer: MessageConsumer, broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    for number in range(100):
        send(broker, number)
    found = messages(consumer, 100)
    assert [m.args[0]["number"] for m in found] == list(range(100))
    for message in found:
        consumer.ack(message)
    assert redis_connection.exists("dramatiq:default.msgs") == 0
    consumer.ack(found[0])


def test_who_is_idle_is_woken_at_once(consumer: MessageConsumer, broker: PulseBroker) -> None:
    sender = threading.Timer(0.2, send, (broker, 7))
    began = time.monotonic()
    sender.start()
    assert numbers(consumer, 1) == [7]
    assert 0.2 <= time.monotonic() - began < 2


def test_a_failed_message_is_put_aside(
    consumer: MessageConsumer, broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    send(broker, 1)
    (message,) = messages(consumer, 1)
    consumer.nack(message)
    assert redis_connection.zcard("dramatiq:default.XQ") == 1


def test_what_was_not_begun_goes_back_when_it_closes(
    consumer: MessageConsumer, broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    for number in range(5):
        send(broker, number)
    assert numbers(consumer, 2) == [0, 1]
    consumer.close()
    assert redis_connection.llen("dramatiq:default") == 3


def put(connection: redis.Redis, data: bytes, key: str = "a-key") -> None:
    connection.hset("dramatiq:default.msgs", key, data)
    connection.rpush("dramatiq:default", key)


def test_a_hint_of_a_former_version_goes_to_its_lane(
    consumer: MessageConsumer, broker: PulseBroker, redis_connection: redis.Redis
) -> None:
    hint = make_hint()
    key, data = former_hint(hint)
    put(redis_connection, data, key)
    send(broker, 1)
    assert numbers(consumer, 1) == [1]
    lane = Lane("default", "email")
    assert broker.lanes.take({lane: 9}, 9, (0, 0, 0), ["default"]).hints == [hint]
    assert redis_connection.hlen("dramatiq:default.msgs") == 1


@pytest.mark.parametrize(
    "data", [b"\xff{", b"[1]", json.dumps({"actor_name": "nobody", "args": []}).encode()]
)
def test_junk_is_put_aside_and_counted_and_its_neighbours_are_consumed(
    data: bytes,
    consumer: MessageConsumer,
    broker: PulseBroker,
    counters: Counters,
    redis_connection: redis.Redis,
) -> None:
    put(redis_connection, data)
    send(broker, 1)
    assert numbers(consumer, 1) == [1]
    assert redis_connection.zrange("dramatiq:default.XQ", 0, -1) == [b"a-key"]
    assert eventually(lambda: counters.read() == {"_worker": {"junk": 1}})


def test_messages_of_event_types_are_neither_acked_nor_returned_here(
    consumer: MessageConsumer, redis_connection: redis.Redis
) -> None:
    hint: Any = dramatiq.Message("default", "email", (make_hint().job_id,), {}, {})
    consumer.ack(MessageProxy(hint))
    consumer.nack(MessageProxy(hint))
    consumer.requeue([MessageProxy(hint)])
    assert redis_connection.keys("*") == []


def test_it_outlives_a_redis_that_is_away(
    consumer: MessageConsumer, broker: PulseBroker, client: redis.Redis
) -> None:
    broken = threading.Timer(
        0.2, client.connection_pool.disconnect, kwargs={"inuse_connections": True}
    )
    broken.start()
    began = time.monotonic()
    assert next(consumer) is None
    assert time.monotonic() - began < 3
    send(broker, 1)
    assert numbers(consumer, 1) == [1]


def test_a_process_that_stops_takes_nothing_more(
    consumer: MessageConsumer, broker: PulseBroker, draining: threading.Event
) -> None:
    send(broker, 1)
    draining.set()
    assert next(consumer) is None
    assert broker.lists.has_messages("default")
