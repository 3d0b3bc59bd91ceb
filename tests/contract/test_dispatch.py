"""Hints for what is due and has none, by calling: on real MongoDB and Redis."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import redis

from service.queue.lanes import Lane, Lanes
from service.store import JobStore
from service.worker.claiming.pour import pour
from service.worker.maintenance.dispatch import dispatch
from tests.factories import NOW, accept, accept_many, ago, ahead, claim, claimed, failed

QUEUES = {"email": "default"}
EMAIL = Lane("default", "email")
WINDOW = 50
NO_SHARES = (0, 0, 0)


@pytest.fixture
def lanes(redis_connection: redis.Redis) -> Lanes:
    return Lanes(redis_connection, "dramatiq", WINDOW)


def send(
    store: JobStore,
    lanes: Lanes,
    at: datetime = NOW,
    queues: dict[str, str] | None = None,
    pause: Callable[[float], None] = lambda _: None,
    **more: Any,
) -> int:
    return dispatch(store, lanes, queues or QUEUES, at, pause=pause, **more)


def take(lanes: Lanes, most: int = 100, lane: Lane = EMAIL) -> list[str]:
    taken = lanes.take({lane: most}, most, NO_SHARES, [lane.queue])
    return [hint.job_id for hint in taken.hints]


def test_a_due_job_without_a_hint_gets_one(store: JobStore, lanes: Lanes) -> None:
    ids = [accept(store, at=ago(9), priority=p)["_id"] for p in ("low", "high", "normal")]
    assert send(store, lanes) == 3
    assert sorted(take(lanes)) == sorted(ids)


def test_a_job_whose_hint_waits_gets_no_second_one(store: JobStore, lanes: Lanes) -> None:
    accept(store, at=ago(9))
    assert send(store, lanes) == 1
    assert send(store, lanes) == 0


def test_a_job_that_has_just_become_due_may_have_its_hint_under_way(
    store: JobStore, lanes: Lanes
) -> None:
    accept(store, at=ago(0.5))
    assert send(store, lanes) == 0
    assert send(store, lanes, ahead(1)) == 1


def test_a_job_is_not_dispatched_before_its_time(store: JobStore, lanes: Lanes) -> None:
    accept(store, run_at=ahead(60))
    assert send(store, lanes, ahead(59)) == 0
    assert send(store, lanes, ahead(61)) == 1


def test_claimed_final_and_unknown_jobs_are_not_dispatched(store: JobStore, lanes: Lanes) -> None:
    claimed(store, at=ago(9))
    failed(store, at=ago(9))
    accept(store, at=ago(9), type="new")
    assert send(store, lanes) == 0


def test_every_type_is_dispatched_to_its_queue(store: JobStore, lanes: Lanes) -> None:
    names = {f"type-{n:03}": ("default", "mail")[n % 2] for n in range(230)}
    for name in names:
        accept(store, type=name, queue="former", at=ago(9))
    assert send(store, lanes, queues=names) == 230
    assert len(take(lanes, lane=Lane("mail", "type-229"))) == 1


def test_what_redis_lost_is_dispatched_again(
    store: JobStore, lanes: Lanes, redis_connection: redis.Redis
) -> None:
    ids = accept_many(store, 5)
    send(store, lanes, ahead(2))
    redis_connection.flushall()
    assert send(store, lanes, ahead(2)) == 5
    assert take(lanes) == ids


def test_what_somebody_has_taken_and_never_claimed_is_dispatched_again(
    store: JobStore, lanes: Lanes
) -> None:
    job_id = accept(store, at=ago(9))["_id"]
    send(store, lanes)
    take(lanes)
    assert send(store, lanes) == 1
    claim(store, job_id)
    assert store.claims.claim([job_id], "other", NOW) == []


def test_what_somebody_has_taken_and_is_claiming_is_not_dispatched_again(
    store: JobStore, lanes: Lanes
) -> None:
    ids = accept_many(store, 20)
    send(store, lanes, ahead(2))
    taken = take(lanes, 12)

    def meanwhile(_seconds: float) -> None:
        assert len(store.claims.claim(taken, "w", NOW)) == 12

    assert send(store, lanes, ahead(2), pause=meanwhile) == 0
    assert take(lanes) == ids[12:]


def test_of_a_long_backlog_the_oldest_are_dispatched_and_the_rest_is_poured(
    store: JobStore, lanes: Lanes
) -> None:
    ids = accept_many(store, 80)
    assert send(store, lanes, ahead(2)) == WINDOW
    assert lanes.has_overflow(EMAIL)
    assert len(store.claims.claim(take(lanes, 30), "w", NOW)) == 30
    assert send(store, lanes, ahead(2)) == 0
    pour(store, lanes, EMAIL, ahead(2))
    assert take(lanes) == ids[30:]


def test_a_lane_whose_overflow_got_lost_gets_it_back(store: JobStore, lanes: Lanes) -> None:
    accept_many(store, 2 * WINDOW)
    send(store, lanes, ahead(2))
    lanes.clear_overflow(EMAIL)
    send(store, lanes, ahead(2))
    assert lanes.has_overflow(EMAIL)


def test_a_lane_that_workers_have_forgotten_is_known_again(
    store: JobStore, lanes: Lanes, redis_connection: redis.Redis
) -> None:
    accept_many(store, 20)
    send(store, lanes, ahead(2))
    redis_connection.delete("dramatiq:__lanes__")
    assert send(store, lanes, ahead(2)) == 0
    assert EMAIL in lanes.known()


def test_only_what_became_due_lately_can_be_asked_for(store: JobStore, lanes: Lanes) -> None:
    accept(store, at=ago(60))
    late = accept(store, at=ago(2))["_id"]
    assert send(store, lanes, since=ago(4)) == 1
    assert take(lanes) == [late]


def test_where_nothing_is_due_redis_is_not_asked(
    store: JobStore, lanes: Lanes, redis_connection: redis.Redis
) -> None:
    accept(store, delay_ms=60_000)
    before = redis_connection.info("stats")["total_commands_processed"]
    assert send(store, lanes) == 0
    assert redis_connection.info("stats")["total_commands_processed"] - before <= 1
