"""Pours on real MongoDB and Redis: a lane's window is filled from a backlog of any length."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
import redis

from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.job import Hint
from service.queue.lanes import Lane, Lanes
from service.store import JobStore
from service.worker.claiming.pour import pour
from service.worker.claiming.pourer import Pourer
from tests.factories import (
    NOW,
    accept,
    accept_many,
    ago,
    ahead,
    claim,
    eventually,
    new_job_document,
)

EMAIL = Lane("default", "email")
WINDOW = 20


@pytest.fixture
def lanes(redis_connection: redis.Redis) -> Lanes:
    lanes = Lanes(redis_connection, "dramatiq", WINDOW)
    lanes.set_overflow(EMAIL)
    return lanes


def take(lanes: Lanes, most: int = 100) -> list[str]:
    return [h.job_id for h in lanes.take({EMAIL: most}, most, (0, 0, 0), ["default"]).hints]


def drain(store: JobStore, lanes: Lanes, *, at_once: int = 7) -> list[str]:
    """What one worker gets that takes, claims and pours until there is nothing, in that order."""
    seen: list[str] = []
    while True:
        taken = lanes.take({EMAIL: at_once}, at_once, (6, 3, 1), ["default"])
        seen += [h.job_id for h in taken.hints if store.claims.claim([h.job_id], "w", NOW)]
        for lane in taken.to_pour:
            pour(store, lanes, lane, NOW)
        if not taken.hints and not taken.to_pour:
            return seen


def test_the_oldest_jobs_are_poured_as_far_as_the_window_goes(
    store: JobStore, lanes: Lanes
) -> None:
    ids = accept_many(store, 50)
    assert pour(store, lanes, EMAIL, NOW) == WINDOW
    assert lanes.has_overflow(EMAIL)
    assert take(lanes) == ids[:WINDOW]


def test_the_next_pour_goes_on_where_the_last_one_came_to(store: JobStore, lanes: Lanes) -> None:
    ids = accept_many(store, 100)
    pour(store, lanes, EMAIL, NOW)
    taken = take(lanes, 12)
    pour(store, lanes, EMAIL, NOW)
    assert take(lanes) == ids[12:32]
    assert taken == ids[:12]  # still pending, and not poured once more


def test_behind_many_that_have_a_hint_and_are_due_since_the_same_moment_it_finds_others(
    store: JobStore, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.worker.claiming.pour._POURED_BEFORE", 2)
    documents = [new_job_document(at=NOW) for _ in range(2 * WINDOW)]
    store.new_jobs.accept(documents)
    ids = sorted(document["_id"] for document in documents)
    pour(store, lanes, EMAIL, NOW)
    assert take(lanes, 2) == ids[:2]
    claim(store, ids[0])
    claim(store, ids[1])
    assert pour(store, lanes, EMAIL, NOW) == 2
    assert take(lanes) == ids[2 : WINDOW + 2]


def test_where_the_backlog_ends_so_does_the_overflow(store: JobStore, lanes: Lanes) -> None:
    ids = accept_many(store, 15)
    assert pour(store, lanes, EMAIL, NOW) == 15
    assert not lanes.has_overflow(EMAIL)
    assert lanes.since(EMAIL) is None
    assert take(lanes) == ids
    assert lanes.push([Hint(accept(store)["_id"], "email", "default", "normal")]) == 1


def test_a_backlog_is_drained_once_and_in_its_order(store: JobStore, lanes: Lanes) -> None:
    ids = accept_many(store, 230)
    assert drain(store, lanes) == ids
    assert not lanes.has_overflow(EMAIL)
    assert take(lanes) == []


def test_twenty_thousand_jobs_of_one_moment_are_drained(
    store: JobStore, redis_connection: redis.Redis
) -> None:
    lanes = Lanes(redis_connection, "dramatiq", 500)
    lanes.set_overflow(EMAIL)
    ids = {accept(store, at=ago(1))["_id"] for _ in range(2_000)}
    seen: set[str] = set()
    while batch := take(lanes, 200) or (pour(store, lanes, EMAIL, NOW) and take(lanes, 200)):
        seen.update(job.id for job in store.claims.claim(batch, "w", NOW))
    assert seen == ids


def test_every_priority_has_its_share_of_a_window(store: JobStore, lanes: Lanes) -> None:
    for priority in ("high", "normal", "low"):
        accept_many(store, 50, priority=priority)
    pour(store, lanes, EMAIL, NOW)
    found = lanes.take({EMAIL: 100}, 100, (0, 0, 0), ["default"]).hints
    counts = [sum(h.priority == p for h in found) for p in ("high", "normal", "low")]
    assert counts == [12, 6, 2]


def test_priorities_of_different_length_are_drained_to_the_last(
    store: JobStore, lanes: Lanes
) -> None:
    ids = [
        *accept_many(store, 90, priority="low"),
        *accept_many(store, 10, priority="high"),
        *accept_many(store, 40),
    ]
    assert sorted(drain(store, lanes)) == sorted(ids)


def test_what_has_a_hint_is_not_poured_again(store: JobStore, lanes: Lanes) -> None:
    ids = accept_many(store, 10)
    pour(store, lanes, EMAIL, NOW)
    lanes.set_overflow(EMAIL)
    assert pour(store, lanes, EMAIL, NOW) == 0
    assert take(lanes) == ids


def test_a_job_that_comes_while_the_overflow_ends_gets_its_hint(
    store: JobStore, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found the overflow still set, so nobody else sends one."""
    ids = accept_many(store, 3)
    clear, late = lanes.clear_overflow, list[str]()

    def clear_a_moment_later(lane: Lane) -> None:
        late.append(accept(store)["_id"])
        clear(lane)

    monkeypatch.setattr(lanes, "clear_overflow", clear_a_moment_later)
    pour(store, lanes, EMAIL, NOW)
    assert take(lanes) == [*ids, *late]


def test_what_comes_due_while_the_overflow_ends_gets_its_hint(
    store: JobStore, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hint came at that moment, and found the overflow still set."""
    late = accept(store, delay_ms=200)["_id"]
    clear = lanes.clear_overflow

    def clear_after_a_while(lane: Lane) -> None:
        time.sleep(0.3)
        clear(lane)

    monkeypatch.setattr(lanes, "clear_overflow", clear_after_a_while)
    pour(store, lanes, EMAIL, NOW)
    assert take(lanes) == [late]


def test_where_more_comes_in_between_than_finds_room_the_overflow_is_set_again(
    store: JobStore, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = lanes.clear_overflow

    def clear_much_later(lane: Lane) -> None:
        accept_many(store, 2 * WINDOW)
        clear(lane)

    monkeypatch.setattr(lanes, "clear_overflow", clear_much_later)
    pour(store, lanes, EMAIL, NOW)
    assert lanes.has_overflow(EMAIL)
    assert len(take(lanes)) == WINDOW


def test_other_types_and_what_is_not_due_are_not_poured(store: JobStore, lanes: Lanes) -> None:
    accept(store, type="report")
    accept(store, delay_ms=60_000)
    mine = accept(store)["_id"]
    claim(store, accept(store)["_id"])
    assert pour(store, lanes, EMAIL, NOW) == 1
    assert take(lanes) == [mine]


def test_a_job_of_a_former_queue_is_poured_into_its_types_lane(
    store: JobStore, lanes: Lanes
) -> None:
    accept(store, queue="former")
    pour(store, lanes, EMAIL, NOW)
    (hint,) = lanes.take({EMAIL: 9}, 9, (0, 0, 0), ["default"]).hints
    assert hint.queue == "default"


def test_the_lock_is_given_back_whatever_happens(
    store: JobStore, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("gone")

    assert lanes.take({EMAIL: 1}, 1, (0, 0, 0), []).to_pour == [EMAIL]
    with monkeypatch.context() as broken:
        broken.setattr(store.waiting, "due", fails)
        with pytest.raises(StoreUnavailable):
            pour(store, lanes, EMAIL, NOW)
    assert lanes.has_overflow(EMAIL)
    assert lanes.take({EMAIL: 1}, 1, (0, 0, 0), []).to_pour == [EMAIL]


def test_a_job_that_was_given_back_behind_a_pour_is_found_in_the_end(
    store: JobStore, lanes: Lanes
) -> None:
    """Its time lies before the point from which pours go on."""
    ids = accept_many(store, 100)
    pour(store, lanes, EMAIL, NOW)
    back = take(lanes, 1)
    assert sorted([*drain(store, lanes), *back]) == sorted([*ids, *back])


# on its thread


def test_a_pourer_pours_one_after_the_other_and_outlives_errors(
    store: JobStore, lanes: Lanes, clock: ServerClock, caplog: pytest.LogCaptureFixture
) -> None:
    ids = accept_many(store, 5)
    due = store.waiting.due

    def fails_for_reports(types: Any, *args: Any, **more: Any) -> Any:
        if types == ["report"]:
            raise StoreUnavailable("gone")
        return due(types, *args, **more)

    store.waiting.due = fails_for_reports  # type: ignore[method-assign]
    pourer = Pourer(store, lanes, clock)
    pourer.start()
    with caplog.at_level(logging.WARNING):
        pourer.pour([Lane("default", "report"), EMAIL])
        assert eventually(lambda: take(lanes)) == ids
    pourer.stop()
    pourer.join(5)
    assert not pourer.is_alive()
    assert "a lane isn't filled" in caplog.text


def test_a_pour_of_what_is_due_later_finds_it_then(store: JobStore, lanes: Lanes) -> None:
    job_id = accept(store, delay_ms=5_000)["_id"]
    assert pour(store, lanes, EMAIL, NOW) == 0
    lanes.set_overflow(EMAIL)
    assert pour(store, lanes, EMAIL, ahead(6)) == 1
    assert take(lanes) == [job_id]
