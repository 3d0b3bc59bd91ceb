"""Who is alive, who leads and what is counted, on real MongoDB."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from service.clock import ServerClock
from service.store import Counters, Deltas, LeaderLease, WorkerStore
from service.store.leader import SweepWatch
from tests.factories import all_workers, eventually, make_worker


def age(database: Database[Any], worker_id: str, by_seconds: float) -> None:
    """Makes a heartbeat so much older, by the server's clock."""
    earlier = {"$subtract": ["$heartbeat_at", int(by_seconds * 1000)]}
    database["workers"].update_one({"_id": worker_id}, [{"$set": {"heartbeat_at": earlier}}])


def names(documents: list[dict[str, Any]]) -> list[str]:
    return [d["_id"] for d in documents]


# workers


def test_a_heartbeat_tells_who_and_how_busy_a_worker_is(workers: WorkerStore) -> None:
    workers.beat(make_worker("w1", host="h", pid=7), processing=3)
    (found,) = workers.alive()
    assert (found["_id"], found["host"], found["pid"], found["processing"]) == ("w1", "h", 7, 3)
    assert found["queues"] == ["default"]
    assert 0 <= found["age_seconds"] < 2


def test_a_heartbeat_is_by_the_servers_clock(workers: WorkerStore, clock: ServerClock) -> None:
    workers.beat(make_worker("w1"), processing=0)
    (found,) = all_workers(workers)
    assert abs(found["heartbeat_at"] - clock.now()) < timedelta(seconds=1)


def test_a_heartbeat_renews(workers: WorkerStore, database: Database[Any]) -> None:
    workers.beat(make_worker("w1"), processing=0)
    age(database, "w1", 100)
    assert workers.alive() == []
    workers.beat(make_worker("w1"), processing=1)
    assert names(workers.alive()) == ["w1"]


@pytest.mark.parametrize(("seconds", "dead"), [(0, False), (7, False), (8.1, True), (3_600, True)])
def test_a_worker_is_dead_when_its_heartbeat_is_older_than_the_lease(
    workers: WorkerStore, database: Database[Any], seconds: float, dead: bool
) -> None:
    workers.beat(make_worker("w1"), processing=0)
    age(database, "w1", seconds)
    assert workers.dead_among(["w1"]) == ({"w1"} if dead else set())
    assert names(workers.alive()) == ([] if dead else ["w1"])


def test_a_worker_without_a_document_is_dead(workers: WorkerStore) -> None:
    workers.beat(make_worker("w1"), processing=0)
    assert workers.dead_among(["w1", "gone"]) == {"gone"}
    workers.remove("w1")
    assert workers.dead_among(["w1"]) == {"w1"}


def test_an_old_heartbeat_means_nothing_right_after_an_outage(
    workers: WorkerStore, database: Database[Any]
) -> None:
    workers.beat(make_worker("w1"), processing=0)
    age(database, "w1", 100)
    assert workers.dead_among(["w1", "gone"], believe_heartbeats=False) == {"gone"}


def test_of_nobody_nobody_is_dead(workers: WorkerStore) -> None:
    assert workers.dead_among([]) == set()


def test_workers_are_listed_by_id(workers: WorkerStore) -> None:
    for name in ("b", "c", "a"):
        workers.beat(make_worker(name), processing=0)
    assert names(workers.alive()) == ["a", "b", "c"]


def dead_fleet(database: Database[Any], count: int, *, process_space: str = "elsewhere") -> None:
    """So many documents of dead workers, whose ids come before all others."""
    workers = WorkerStore(database, lease_seconds=8)
    workers.beat(make_worker("0", process_space=process_space), processing=0)
    age(database, "0", 100)
    one = database["workers"].find_one({"_id": "0"})
    assert one is not None
    database["workers"].insert_many(one | {"_id": f"0-{n:05}"} for n in range(1, count))


def test_however_many_have_died_the_living_are_seen(
    workers: WorkerStore, database: Database[Any]
) -> None:
    dead_fleet(database, 12_000)
    for name in ("w2", "w1"):
        workers.beat(make_worker(name), processing=0)
    assert names(workers.alive()) == ["w1", "w2"]
    assert sorted(names(workers.seen_from("here"))) == ["w1", "w2"]


def test_of_the_dead_only_neighbours_are_seen_and_they_after_the_living(
    workers: WorkerStore, database: Database[Any]
) -> None:
    dead_fleet(database, 3)
    for name, space, seconds in (
        ("dead", "here", 60),
        ("elsewhere", "there", 0),
        ("w1", "here", 0),
    ):
        workers.beat(make_worker(name, process_space=space), processing=0)
        age(database, name, seconds)
    seen = names(workers.seen_from("here"))
    assert set(seen[:2]) == {"w1", "elsewhere"}
    assert seen[2:] == ["dead"]


def test_only_workers_long_dead_are_forgotten(
    workers: WorkerStore, database: Database[Any]
) -> None:
    for name, seconds in (("alive", 0), ("dead", 60), ("long dead", 4_000)):
        workers.beat(make_worker(name), processing=0)
        age(database, name, seconds)
    assert workers.forget_older_than(3_600) == 1
    assert names(all_workers(workers)) == ["alive", "dead"]


# the leader


@pytest.fixture
def lease(database: Database[Any]) -> Any:
    """Makes a candidate for the lead."""
    return lambda holder, seconds=60.0: LeaderLease(database, holder, seconds)


def test_one_of_two_leads(lease: Any) -> None:
    first, second = lease("a"), lease("b")
    assert first.renew()
    assert not second.renew()
    assert (first.is_held, second.is_held) == (True, False)


def test_of_many_at_once_one_leads(lease: Any) -> None:
    candidates = [lease(f"w{i}") for i in range(8)]
    gate = threading.Barrier(8)

    def run(candidate: LeaderLease) -> None:
        gate.wait(5)
        candidate.renew()

    threads = [threading.Thread(target=run, args=(c,)) for c in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(c.is_held for c in candidates) == 1


def test_a_leader_goes_on_leading(lease: Any) -> None:
    first, second = lease("a", 0.3), lease("b")
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        assert first.renew()
        assert not second.renew()


def test_an_expired_lease_is_taken_over(lease: Any) -> None:
    first, second = lease("a", 0.1), lease("b")
    first.renew()
    assert eventually(second.renew, within=3)
    assert not first.is_held
    assert not first.renew()


def test_a_leader_never_believes_longer_than_the_server_does(lease: Any) -> None:
    first, second = lease("a", 0.2), lease("b")
    first.renew()
    while not second.renew():
        pass
    assert not first.is_held


def test_who_resigns_frees_the_lead_at_once(lease: Any) -> None:
    first, second = lease("a"), lease("b")
    first.renew()
    first.resign()
    assert not first.is_held
    assert second.renew()


def test_who_has_resigned_takes_no_lead_again(lease: Any) -> None:
    first, second = lease("a"), lease("b")
    first.resign()
    assert not first.renew()
    assert second.renew()


def test_a_renewal_that_is_under_way_does_not_outlive_the_resignation(
    lease: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = lease("a"), lease("b")
    take, begun, go_on = first._take, threading.Event(), threading.Event()

    def take_late() -> bool:
        begun.set()
        assert go_on.wait(5)
        return bool(take())

    monkeypatch.setattr(first, "_take", take_late)
    renewal, resignation = (threading.Thread(target=f) for f in (first.renew, first.resign))
    renewal.start()
    assert begun.wait(5)
    resignation.start()
    resignation.join(0.2)
    go_on.set()
    renewal.join(5)
    resignation.join(5)
    assert not first.is_held
    assert second.renew()


def test_who_does_not_lead_resigns_nobody_else(lease: Any) -> None:
    first, second = lease("a"), lease("b")
    first.renew()
    second.resign()
    assert not second.renew()


def test_a_leader_that_is_known_to_be_gone_is_buried(lease: Any) -> None:
    first, second = lease("a"), lease("b")
    first.renew()
    second.bury("somebody else")
    assert not second.renew()
    second.bury("a")
    assert second.renew()


def test_the_age_of_the_last_tick_is_known_to_everybody(
    lease: Any, database: Database[Any]
) -> None:
    watch, first, second = SweepWatch(database), lease("a"), lease("b")
    first.renew()
    assert watch.age_seconds() is None
    first.ticked()
    first.renew()
    age = watch.age_seconds()
    assert age is not None
    assert 0 <= age < 1
    first.renew()  # without a tick in between
    second.ticked()
    second.renew()  # it does not lead
    assert eventually(lambda: (watch.age_seconds() or 0) > age)


def test_the_age_of_the_last_tick_outlives_its_leader(lease: Any, database: Database[Any]) -> None:
    first = lease("a")
    first.renew()
    first.ticked()
    first.renew()
    first.resign()
    assert SweepWatch(database).age_seconds() is not None


# counters


def counted(counters: Counters, **by_type: Any) -> None:
    deltas = Deltas()
    for document, fields in by_type.items():
        for name, amount in fields.items():
            deltas.add(document, name, amount)
    counters.add(deltas)


def test_counts_add_up_over_batches(counters: Counters) -> None:
    counted(counters, email={"received": 2}, report={"received": 1})
    counted(counters, email={"received": 3, "failed.error": 1, "wait.sum": 0.5})
    expected = {
        "email": {"received": 5, "failed": {"error": 1}, "wait": {"sum": 0.5}},
        "report": {"received": 1},
    }
    assert eventually(lambda: counters.read() == expected)


def test_counts_of_many_processes_add_up(database: Database[Any]) -> None:
    def run() -> None:
        for _ in range(20):
            counted(Counters(database), email={"received": 1})

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert eventually(lambda: Counters(database).read().get("email") == {"received": 100})


def test_nothing_to_count_writes_nothing(counters: Counters) -> None:
    counters.add(Deltas())
    assert counters.read() == {}


def test_a_type_with_a_dot_in_its_name_is_counted_as_itself(counters: Counters) -> None:
    counted(counters, **{"mail.sent": {"received": 1}})
    assert eventually(lambda: counters.read() == {"mail.sent": {"received": 1}})
