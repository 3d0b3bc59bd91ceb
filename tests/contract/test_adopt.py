"""What processes of a former version put into Redis comes to the lanes: on real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis

from service.catalog import Catalog
from service.job import Hint
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.queue.lanes import Lane
from service.settings import Settings
from service.store import Counters
from service.worker.maintenance.adopt import adopt
from tests.factories import eventually, make_catalog, make_hint, make_type
from tests.former_version import former_hint

EMAIL, SMS = Lane("default", "email"), Lane("mail", "sms")


@pytest.fixture
def catalog() -> Catalog:
    return make_catalog([make_type("email"), make_type("sms", queue="mail")])


@pytest.fixture
def broker(
    settings: Settings, catalog: Catalog, redis_connection: redis.Redis
) -> Iterator[PulseBroker]:
    broker = PulseBroker(redis_client.connect(settings), is_event_type=catalog.get)
    for event_type in catalog:
        actor = dramatiq.actor(
            broker=broker, actor_name=event_type.name, queue_name=event_type.queue
        )
        actor(lambda job_id: None)
    yield broker
    broker.close()


def put(connection: redis.Redis, hint: Hint, **changes: Any) -> None:
    """As the web of a former version does it."""
    key, data = former_hint(hint)
    base = f"dramatiq:{hint.queue}"
    suffix = "" if hint.priority == "normal" else f":{hint.priority}"
    connection.hset(f"{base}.msgs", key, json.dumps(json.loads(data) | changes))
    connection.rpush(base + suffix, key)


def taken(broker: PulseBroker) -> list[Hint]:
    wants = {EMAIL: 2_000, SMS: 2_000}
    return broker.lanes.take(wants, 4_000, (0, 0, 0), ["default", "mail"]).hints


def test_hints_of_a_former_version_come_to_their_lanes(
    broker: PulseBroker, catalog: Catalog, counters: Counters, redis_connection: redis.Redis
) -> None:
    sent = [make_hint(priority=p) for p in ("high", "normal", "low")]
    sent += [make_hint(type="sms", queue="mail")]
    for hint in sent:
        put(redis_connection, hint)
    assert adopt(broker, catalog, counters) == 4
    assert sorted(taken(broker), key=sent.index) == sent
    assert redis_connection.keys("*") == []


def test_many_are_adopted_by_the_hundred(
    broker: PulseBroker, catalog: Catalog, counters: Counters, redis_connection: redis.Redis
) -> None:
    sent = [make_hint() for _ in range(1_200)]
    for hint in sent:
        put(redis_connection, hint)
    assert adopt(broker, catalog, counters) == 1_200
    assert taken(broker) == sent


def test_where_nothing_lies_there_redis_is_asked_once(
    broker: PulseBroker, catalog: Catalog, counters: Counters, redis_connection: redis.Redis
) -> None:
    adopt(broker, catalog, counters)  # loads the script
    before = redis_connection.info("commandstats")["cmdstat_evalsha"]["calls"]
    exists = redis_connection.info("commandstats")["cmdstat_exists"]["calls"]
    assert adopt(broker, catalog, counters) == 0
    stats = redis_connection.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] - before == 1
    assert stats["cmdstat_exists"]["calls"] - exists == 1


def test_a_former_overflow_ends_so_that_its_web_sends_again(
    broker: PulseBroker, catalog: Catalog, counters: Counters, redis_connection: redis.Redis
) -> None:
    redis_connection.set("dramatiq:default.overflow", "1")
    assert adopt(broker, catalog, counters) == 0
    assert redis_connection.keys("*") == []


def test_messages_of_other_actors_in_the_same_queue_are_left_to_its_consumer(
    broker: PulseBroker, catalog: Catalog, counters: Counters, redis_connection: redis.Redis
) -> None:
    dramatiq.actor(broker=broker, actor_name="other", queue_name="mail")(lambda *_: None)
    put(redis_connection, make_hint(type="sms", queue="mail"))
    put(redis_connection, make_hint())
    assert adopt(broker, catalog, counters) == 1
    assert redis_connection.llen("dramatiq:mail") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"actor_name": "nobody"},
        {"actor_name": ["email"]},
        {"args": ()},
        {"args": ("x", "y")},
        {"args": 7},
        {"args": ("x",)},
        {"args": ({"$gt": ""},)},
        {"options": 7},
    ],
)
def test_junk_is_put_aside_and_counted_and_its_neighbours_are_adopted(
    changes: dict[str, Any],
    broker: PulseBroker,
    catalog: Catalog,
    counters: Counters,
    redis_connection: redis.Redis,
) -> None:
    hint = make_hint()
    put(redis_connection, make_hint(), **changes)
    redis_connection.rpush("dramatiq:default", "without content")
    put(redis_connection, hint)
    assert adopt(broker, catalog, counters) == 1
    assert taken(broker) == [hint]
    assert redis_connection.zcard("dramatiq:default.XQ") == 1
    assert eventually(lambda: counters.read() == {"_worker": {"junk": 2}})


def test_what_else_a_message_says_is_not_its_business(
    broker: PulseBroker, catalog: Catalog, counters: Counters, redis_connection: redis.Redis
) -> None:
    hint = make_hint()
    options = {"eta": 4_102_444_800_000, "time_limit": 1, "priority": ["high"]}
    put(redis_connection, hint, options=options, kwargs={"x": 1}, queue_name="elsewhere")
    adopt(broker, catalog, counters)
    assert taken(broker) == [hint]
