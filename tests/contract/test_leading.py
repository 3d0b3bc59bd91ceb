"""What the leader of the sweep does, and how the lead changes hands."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pymongo.database import Database

from service.queue.lanes import Lane
from service.runtime.identity import process_space
from service.store import JobStore, WorkerStore
from service.worker.process import WorkerProcess
from tests.contract.worker_process import MakeProcess, run_beat
from tests.factories import accept, ago, all_workers, claim, failed, make_worker


def test_only_the_leader_sweeps(make_process: MakeProcess, store: JobStore) -> None:
    leader, other = make_process(), make_process()
    lost = claim(store, accept(store)["_id"], worker="gone")
    run_beat(other, "rescue")
    assert store.requests.get(lost.id)["status"] == "processing"
    run_beat(leader, "rescue")
    assert store.requests.get(lost.id)["status"] == "pending"


def test_a_process_that_stops_leaves_the_lead_at_once(make_process: MakeProcess) -> None:
    leader, other = make_process(), make_process()
    leader._shutdown.drain()
    other._heartbeat.beat()
    assert other._leader.is_held
    assert not leader._leader.is_held


def test_a_process_that_stops_takes_no_lead_over_from_a_neighbour_that_is_gone(
    make_process: MakeProcess, workers: WorkerStore
) -> None:
    leader, other = make_process(), make_process()
    leader._shutdown.drain()
    workers.beat(make_worker("gone", process_space=process_space(), pid_started=5), processing=0)
    leader._neighbours.look()
    assert "gone" not in {w["_id"] for w in all_workers(workers)}
    other._heartbeat.beat()
    assert other._leader.is_held


def test_right_after_an_outage_nobody_is_dead_for_an_old_heartbeat(
    process: WorkerProcess, workers: WorkerStore, store: JobStore
) -> None:
    workers.beat(make_worker("late"), processing=1)
    old = {"$set": {"heartbeat_at": process.clock.now().replace(year=2020)}}
    process._stores._database["workers"].update_one({"_id": "late"}, old)
    job = claim(store, accept(store)["_id"], worker="late")
    run_beat(process, "rescue")
    assert store.requests.get(job.id)["status"] == "processing"
    process._heartbeat._well_since = time.monotonic() - 60
    process._rescuer.hurry()  # where the look before took long, the next one would come later
    run_beat(process, "rescue")
    assert store.requests.get(job.id)["status"] == "pending"


def test_a_hint_that_gets_lost_again_is_soon_sent_again(
    process: WorkerProcess, store: JobStore
) -> None:
    job, lane = accept(store, at=ago(60)), Lane("default", "email")
    for _ in range(3):
        process._dispatcher._all.hurry()
        run_beat(process, "dispatch")
        assert process._broker.lanes.listed(lane) == {job["_id"]}
        process._broker.client.flushall()
        # The pause would put off the next look by ten seconds.
        assert process._dispatcher._all._paused_seconds > 0


@pytest.mark.parametrize(("sent", "is_due"), [(1, True), (0, False)])
def test_a_dispatch_that_found_something_does_not_put_off_the_next(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch, sent: int, is_due: bool
) -> None:
    def slow(*_: Any, **__: Any) -> int:
        time.sleep(0.1)  # so long that the next look would come later
        return sent

    monkeypatch.setattr("service.worker.maintenance.dispatcher.dispatch", slow)
    process._dispatcher.dispatch()  # for all that is due
    process._dispatcher.dispatch()  # for what has become so lately
    assert process._dispatcher._recent.is_due is is_due


def test_tidying_frees_what_the_dead_left(
    process: WorkerProcess, workers: WorkerStore, store: JobStore
) -> None:
    workers.beat(make_worker("long dead"), processing=0)
    old = {"$set": {"heartbeat_at": process.clock.now().replace(year=2020)}}
    process._stores._database["workers"].update_one({"_id": "long dead"}, old)
    stray = claim(store, accept(store)["_id"], worker=process.identity.id)
    failed(store)
    for name in ("lost claims", "tidy"):
        run_beat(process, name)
    assert [w["_id"] for w in all_workers(workers)] == [process.identity.id]
    assert store.requests.get(stray.id)["status"] == "pending"


def test_tidying_drops_an_index_of_a_former_version_when_its_last_worker_is_gone(
    process: WorkerProcess, database: Database[Any], workers: WorkerStore
) -> None:
    jobs = database["jobs"]
    jobs.create_index("queue", name="waiting", partialFilterExpression={"status": "pending"})
    database["workers"].insert_one({"_id": "former", "heartbeat_at": process.clock.now()})
    run_beat(process, "tidy")
    assert "waiting" in jobs.index_information()
    workers.remove("former")
    run_beat(process, "tidy")
    assert "waiting" not in jobs.index_information()


def test_an_index_that_a_former_version_makes_anew_is_left_to_it(
    process: WorkerProcess, database: Database[Any]
) -> None:
    """Whoever rolls back builds it before its first heartbeat, and it may take minutes."""
    run_beat(process, "tidy")
    jobs = database["jobs"]
    jobs.create_index("queue", name="waiting", partialFilterExpression={"status": "pending"})
    run_beat(process, "tidy")
    assert "waiting" in jobs.index_information()
    jobs.drop_index("waiting")
