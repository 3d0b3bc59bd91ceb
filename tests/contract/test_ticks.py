"""Ticks of schedules: exactly one event each, whoever dies, on real MongoDB."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from service.catalog import Catalog
from service.clock import ServerClock, from_ms, to_ms
from service.errors import StoreUnavailable
from service.job import Hint, Outcome
from service.store import BulkChanges, Counters, Filter, JobStore, Listing, WorkerStore
from service.store.schedules import Schedules
from service.store.ticks import NEVER, Ticks
from service.ticks import Timing
from service.worker.maintenance import scheduler as module
from service.worker.maintenance.scheduler import Scheduler
from tests.factories import (
    NOW,
    claim,
    eventually,
    finish,
    make_catalog,
    make_type,
    make_worker,
    new_job_document,
    seconds,
)

MINUTE = from_ms(to_ms(NOW) // 300_000 * 300_000)
"""A full minute, at which every one of these schedules may tick."""
EVENT = {"type": "email", "payload": {"to": "a@example.com"}}
OF_EVENTS_ALONE = {"_id", "type", "payload", "created_at", "updated_at", "next_attempt_at"}


class SetClock(ServerClock):
    """Stands still until it is set."""

    at = MINUTE

    def now(self) -> datetime:
        return self.at


class Died(BaseException):
    """What a kill is to a test: nothing catches it."""


@pytest.fixture
def schedules(database: Database[Any]) -> Schedules:
    return Schedules(database)


@pytest.fixture
def ticks(database: Database[Any]) -> Ticks:
    return Ticks(database)


@pytest.fixture
def at() -> SetClock:
    return SetClock()


@pytest.fixture
def sent() -> list[Hint]:
    return []


@pytest.fixture
def leader(
    *,
    ticks: Ticks,
    store: JobStore,
    workers: WorkerStore,
    counters: Counters,
    at: SetClock,
    sent: list[Hint],
) -> Callable[..., Scheduler]:
    """A leader of its own for each call: as many as one wants, at the same moment."""

    def make(worker: str = "w1", types: Catalog | None = None, **over: Any) -> Scheduler:
        workers.beat(make_worker(worker), 0)
        parts: dict[str, Any] = {"ticks": ticks, "jobs": store, "workers": workers}
        parts |= {"counters": counters, "clock": at, "catalog": types or make_catalog()}
        parts |= {"worker_id": worker, "leads": lambda: True, "send": sent.extend}
        made = Scheduler(**(parts | over))
        workers.watch(worker, MINUTE - seconds(3_600))
        made._is_known = True
        return made

    return make


def put(
    schedules: Schedules, name: str = "nightly", first: datetime | None = MINUTE, **over: Any
) -> dict[str, Any]:
    """A schedule as the API stores it, whose next tick is `first`; None: it has none."""
    event = over.pop("event", EVENT)
    whole = new_job_document(type=event["type"], payload=event["payload"])
    definition = {
        "cron": None,
        "timezone": None,
        "every_seconds": 60,
        "event": event,
        "overlap": "allow",
        "missed": "one",
        "paused": False,
        "template": {n: v for n, v in whole.items() if n not in OF_EVENTS_ALONE},
        "size": 50,
    } | over
    return schedules.put(name, definition, lambda _: first, MINUTE)[0]


def events(database: Database[Any], name: str = "nightly") -> list[dict[str, Any]]:
    """What the schedule has made, oldest tick first."""
    return list(database["jobs"].find({"schedule": name}, sort=[("tick_at", 1)]))


def following(tick: datetime) -> datetime:
    found = Timing(every_seconds=60).after(tick)
    assert found is not None
    return found


# one tick


def test_a_tick_makes_an_event_that_is_due_and_moves_the_schedule_on(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    sent: list[Hint],
    counters: Counters,
) -> None:
    put(schedules)
    leader().beat()
    (event,) = events(database)
    assert (event["status"], event["next_attempt_at"], event["tick_at"]) == (
        "pending",
        MINUTE,
        MINUTE,
    )
    assert (event["type"], event["payload"]) == (EVENT["type"], EVENT["payload"])
    assert "unconfirmed" not in event
    schedule = schedules.get("nightly")
    assert schedule["next_run_at"] == following(MINUTE)
    assert (schedule["last_run_at"], schedule["last_event_id"]) == (MINUTE, event["_id"])
    assert [hint.job_id for hint in sent] == [event["_id"]]
    assert eventually(lambda: counters.read().get("email", {}).get("received")) == 1


def test_what_a_tick_makes_has_the_fields_of_an_event_that_was_posted(
    schedules: Schedules, leader: Callable[..., Scheduler], database: Database[Any]
) -> None:
    put(schedules)
    leader().beat()
    (event,) = events(database)
    assert event.keys() - new_job_document().keys() == {"schedule", "tick_at"}
    assert new_job_document().keys() <= event.keys()


def test_what_is_only_offered_can_not_run(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    store: JobStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(schedules)
    with monkeypatch.context() as patched:
        patched.setattr(module, "crash_point", dies_at("schedules.after_offer"))
        with pytest.raises(Died):
            leader().beat()
    (event,) = events(database)
    assert store.claims.claim([event["_id"]], "w1", MINUTE + seconds(3_600)) == []
    assert store.waiting.any_due(["default"], MINUTE + seconds(3_600)) is False


def test_nothing_is_made_before_its_tick_or_while_paused(
    schedules: Schedules, leader: Callable[..., Scheduler], database: Database[Any]
) -> None:
    put(schedules, "later", MINUTE + seconds(1))
    put(schedules, "paused", None)
    leader().beat()
    assert database["jobs"].count_documents({}) == 0


def test_an_event_follows_the_options_of_its_type_of_today(
    schedules: Schedules, leader: Callable[..., Scheduler], database: Database[Any]
) -> None:
    put(schedules, "a")
    put(schedules, "b", event=EVENT | {"max_attempts": 2})
    put(schedules, "unknown", event=EVENT | {"type": "report"})
    types = make_catalog([make_type("email", queue="mail", max_attempts=9)])
    leader(types=types).beat()
    found = {e["schedule"]: (e["queue"], e["max_attempts"]) for e in database["jobs"].find()}
    assert found == {"a": ("mail", 9), "b": ("mail", 2), "unknown": ("default", 5)}


def test_a_payload_is_data_whatever_its_keys(
    schedules: Schedules, leader: Callable[..., Scheduler], database: Database[Any]
) -> None:
    payload = {"$set": {"$inc": 1}, "a.b": "$$MINUTE", "": {"$where": "x"}}
    for _ in range(2):  # made, then changed
        put(schedules, event=EVENT | {"payload": payload})
    leader().beat()
    assert events(database)[0]["payload"] == payload
    assert schedules.get("nightly")["event"]["payload"] == payload


def test_who_does_not_lead_makes_nothing(
    schedules: Schedules, leader: Callable[..., Scheduler], database: Database[Any]
) -> None:
    put(schedules)
    leader(leads=lambda: False).beat()
    assert events(database) == []


def test_a_schedule_that_is_broken_holds_up_no_other(
    schedules: Schedules, leader: Callable[..., Scheduler], database: Database[Any]
) -> None:
    put(
        schedules,
        "broken",
        MINUTE - seconds(1),
        cron="0 3 * * *",
        every_seconds=None,
        timezone="Mars/X",
    )
    put(schedules, "well")
    leader().beat()
    assert len(events(database, "well")) == 1


# leaders that die, and rivals


@pytest.mark.parametrize("point", ["after_offer", "after_choice", "after_confirm"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_leader_that_dies_at_any_point_makes_no_tick_twice_and_loses_none(
    *,
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    monkeypatch: pytest.MonkeyPatch,
    at: SetClock,
    point: str,
    is_first: bool,
) -> None:
    put(schedules)
    if not is_first:
        leader().beat()
        at.at = following(MINUTE)
    with monkeypatch.context() as patched:
        patched.setattr(module, "crash_point", dies_at(f"schedules.{point}"))
        with pytest.raises(Died):
            leader("dead").beat()
    at.at += seconds(11)  # what was offered and not chosen is removed after ten
    heir = leader("heir")
    heir.beat()
    heir._recover_at = 0.0
    heir.beat()
    assert [e["tick_at"] for e in events(database)] == [MINUTE, following(MINUTE)][: 2 - is_first]
    assert all(e["next_attempt_at"] < NEVER and "unconfirmed" not in e for e in events(database))


def dies_at(point: str) -> Callable[[str], None]:
    def crash_point(name: str) -> None:
        if name == point:
            raise Died

    return crash_point


def test_what_is_only_offered_is_neither_listed_nor_cancelled_so_that_nobody_retries_it(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    listing: Listing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever retried one that is never chosen would have a tick run twice."""
    which, bulk, until = Filter(labels={"schedule": "nightly"}), BulkChanges(database), 9.0
    put(schedules)
    with monkeypatch.context() as patched:
        patched.setattr(module, "crash_point", dies_at("schedules.after_offer"))
        with pytest.raises(Died):
            leader("dead").beat()
    assert len(events(database)) == 1
    assert listing.page(which, 9, None, 1_000_000) == ([], False)
    assert list(bulk.cancel(which, lambda: NOW, time.monotonic() + until)) == []
    leader("heir").beat()
    page, _ = listing.page(which, 9, None, 1_000_000)
    assert [event["tick_at"] for event in page] == [MINUTE]
    chunks = bulk.cancel(which, lambda: NOW, time.monotonic() + until)
    assert [(chunk.matched, chunk.counts) for chunk in chunks] == [(1, (1, 0))]


def test_an_event_that_has_run_and_expired_before_its_leader_was_replaced_is_not_made_again(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(schedules)
    with monkeypatch.context() as patched:
        patched.setattr(module, "crash_point", dies_at("schedules.after_confirm"))
        with pytest.raises(Died):
            leader("dead").beat()
    database["jobs"].delete_many({})
    leader("heir").beat()
    assert events(database) == []
    assert schedules.get("nightly")["next_run_at"] == following(MINUTE)


@pytest.mark.parametrize("has_expired", [False, True])
def test_a_leader_that_was_frozen_before_its_choice_makes_nothing_when_it_goes_on(
    *,
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    ticks: Ticks,
    monkeypatch: pytest.MonkeyPatch,
    at: SetClock,
    has_expired: bool,
) -> None:
    """Whether what another leader made meanwhile is still there or not."""
    put(schedules)
    thawed: list[str] = []

    def meanwhile(name: str) -> None:
        if name == "schedules.after_offer" and not thawed:
            thawed.append(name)
            leader("other").beat()
            if has_expired:
                database["jobs"].delete_many({"unconfirmed": {"$exists": False}})

    monkeypatch.setattr(module, "crash_point", meanwhile)
    frozen = leader("frozen")
    frozen.beat()
    at.at += seconds(11)
    frozen._recover_at = 0.0
    frozen.beat()
    assert len(events(database)) == (0 if has_expired else 1)
    assert ticks.unconfirmed() == []


def test_a_choice_that_was_never_confirmed_is_confirmed_before_the_next(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    monkeypatch: pytest.MonkeyPatch,
    at: SetClock,
) -> None:
    """Also by a leader whose look for what was left behind came just before that choice."""
    put(schedules)
    heir = leader("heir")
    heir._take_over()
    with monkeypatch.context() as patched:
        patched.setattr(module, "crash_point", dies_at("schedules.after_choice"))
        with pytest.raises(Died):
            leader("dead").beat()
    at.at = following(MINUTE)
    heir.beat()
    assert [e["tick_at"] for e in events(database)] == [MINUTE, following(MINUTE)]
    assert all(e["next_attempt_at"] < NEVER for e in events(database))


def test_a_lost_reply_makes_no_tick_twice(
    *,
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    ticks: Ticks,
    monkeypatch: pytest.MonkeyPatch,
    at: SetClock,
) -> None:
    put(schedules)
    mine = leader()
    choose = ticks.choose

    def chosen_in_silence(moves: Any) -> set[str]:
        choose(moves)
        raise StoreUnavailable("no reply")

    with monkeypatch.context() as patched:
        patched.setattr(ticks, "choose", chosen_in_silence)
        with pytest.raises(StoreUnavailable):
            mine.beat()
    mine.beat()
    (event,) = events(database)
    assert event["next_attempt_at"] == MINUTE


def test_a_hundred_ticks_by_two_leaders_are_a_hundred_events(
    schedules: Schedules, leader: Callable[..., Scheduler], database: Database[Any], at: SetClock
) -> None:
    for number in range(10):
        put(schedules, f"s{number}", every_seconds=1)
    rivals = [leader("w1"), leader("w2")]
    for _ in range(10):
        threads = [threading.Thread(target=rival.beat) for rival in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        at.at += seconds(1)
    at.at += seconds(11)
    rivals[0]._confirmer.recover(at.at)
    made = [(e["schedule"], e["tick_at"]) for e in database["jobs"].find()]
    assert len(made) == len(set(made)) == 100


def test_a_change_between_offer_and_choice_loses_nothing(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    monkeypatch: pytest.MonkeyPatch,
    at: SetClock,
) -> None:
    put(schedules)
    changed: list[str] = []

    def change(name: str) -> None:
        if name == "schedules.after_offer" and not changed:
            changed.append(name)
            put(schedules, event=EVENT | {"payload": {"to": "b@example.com"}})

    monkeypatch.setattr(module, "crash_point", change)
    mine = leader()
    mine.beat()
    at.at += seconds(11)
    mine._confirmer.recover(at.at)
    assert [e["payload"]["to"] for e in events(database)] == ["b@example.com"]


def test_what_a_tick_has_chosen_is_made_though_the_schedule_is_removed(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    monkeypatch: pytest.MonkeyPatch,
    at: SetClock,
) -> None:
    put(schedules)
    with monkeypatch.context() as patched:
        patched.setattr(module, "crash_point", dies_at("schedules.after_choice"))
        with pytest.raises(Died):
            leader("dead").beat()
    schedules.delete("nightly", MINUTE)
    at.at += seconds(11)
    leader("heir").beat()
    (event,) = events(database)
    assert event["next_attempt_at"] == MINUTE


def test_an_event_that_a_client_cancelled_before_it_was_due_stays_cancelled(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    store: JobStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(schedules)

    def cancel(name: str) -> None:
        if name == "schedules.after_choice":
            store.requests.cancel(events(database)[0]["_id"], MINUTE)

    monkeypatch.setattr(module, "crash_point", cancel)
    leader().beat()
    (event,) = events(database)
    assert (event["status"], event["next_attempt_at"]) == ("cancelled", None)
    assert "unconfirmed" not in event


# missed ticks, and events that take long


def test_ticks_that_another_worker_was_there_for_are_all_made_late(
    schedules: Schedules, leader: Callable[..., Scheduler], database: Database[Any]
) -> None:
    put(schedules, first=MINUTE - seconds(8), every_seconds=1, missed="none")
    leader().beat()
    made = [e["tick_at"] for e in events(database)]
    assert len(made) == len(set(made)) == 9


@pytest.mark.parametrize("missed", ["one", "none"])
def test_ticks_while_no_worker_was_there_are_one_event_or_none(
    *,
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    workers: WorkerStore,
    database: Database[Any],
    at: SetClock,
    missed: str,
) -> None:
    at.at = MINUTE + seconds(0.5)
    put(schedules, first=at.at - seconds(7.5), every_seconds=1, missed=missed)
    mine = leader()
    workers.watch("w1", at.at - seconds(0.2))
    mine.beat()
    made = events(database)
    assert len(made) == (1 if missed == "one" else 0)
    schedule = schedules.get("nightly")
    assert schedule["next_run_at"] == at.at + seconds(0.5)
    assert schedule["last_run_at"] == (at.at if made else None)


def test_an_outage_of_hours_is_one_event(
    schedules: Schedules, leader: Callable[..., Scheduler], database: Database[Any], at: SetClock
) -> None:
    """Though workers were there and could do nothing."""
    at.at = MINUTE + seconds(50)
    put(schedules, first=MINUTE - seconds(3_000), every_seconds=100)
    leader().beat()
    assert len(events(database)) == 1
    assert schedules.get("nightly")["next_run_at"] > at.at - module.LATE_AT_MOST


def test_with_skip_no_event_is_made_while_the_last_one_is_open(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    database: Database[Any],
    store: JobStore,
    at: SetClock,
) -> None:
    put(schedules, overlap="skip")
    mine = leader()
    mine.beat()
    at.at = following(at.at)
    mine.beat()
    (event,) = events(database)
    assert schedules.get("nightly")["last_run_at"] == event["tick_at"]
    finish(store, claim(store, event["_id"]), Outcome.REJECTED, message="no")
    at.at = following(at.at)
    mine.beat()
    assert len(events(database)) == 2


# what it costs


def test_a_beat_with_nothing_due_asks_mongodb_once(
    schedules: Schedules,
    leader: Callable[..., Scheduler],
    ticks: Ticks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(schedules, first=MINUTE + timedelta(hours=1))
    mine = leader()
    mine.beat()
    asked: list[str] = []
    for name in ("due", "read", "choose", "confirm", "unconfirmed", "discard"):
        called = getattr(ticks, name)
        monkeypatch.setattr(
            ticks, name, lambda *a, n=name, c=called, **k: (asked.append(n), c(*a, **k))[1]
        )
    mine.beat()
    assert asked == ["due"]
