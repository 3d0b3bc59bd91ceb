"""The beats of a worker process, each by calling it: on real MongoDB and Redis."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from pymongo.database import Database

from actors import dead_letter
from infra.servers import free_port
from service.job import Outcome
from service.queue import redis_client
from service.runtime.identity import pid_started, process_space
from service.settings import Settings
from service.store import JobStore, LeaderLease, WorkerStore
from service.store.documents import hint_of
from service.worker.build import build_broker
from service.worker.lifecycle import Lifecycle
from service.worker.process import WorkerProcess
from tests.factories import (
    NOW,
    accept,
    ago,
    claim,
    done,
    done_async,
    ending,
    eventually,
    failed,
    hints_in,
    make_catalog,
    make_held,
    make_type,
    make_worker,
    new_job_document,
)

MakeProcess = Callable[..., WorkerProcess]


class Exited(BaseException):
    """Raised in place of the end of the process that runs the tests."""


@pytest.fixture(autouse=True)
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Exited

    monkeypatch.setattr(os, "_exit", leave)
    return codes


@pytest.fixture
def make_process(
    settings: Settings, database: Database[Any], redis_connection: redis.Redis
) -> Iterator[MakeProcess]:
    """A worker process without Dramatiq's threads."""
    made: list[WorkerProcess] = []

    def make(**over: Any) -> WorkerProcess:
        changed = replace(settings, **({"shutdown_grace_seconds": 0.2} | over))
        types = make_catalog([make_type("email", done_async), make_type("report", done)])
        broker = build_broker(changed, types, dead_letter.declare)
        (lifecycle,) = [m for m in broker.middleware if isinstance(m, Lifecycle)]
        threads: Any = SimpleNamespace(
            consumer_whitelist=None, worker_threads=4, consumers={}, workers=[]
        )
        process = lifecycle._process = WorkerProcess(changed, types, broker, threads)
        made.append(process)
        process.start()
        return process

    yield make
    for process in made:
        process.finish()
        process._stores.close()
        process._supply.wake_client.close()
        process._broker.close()


@pytest.fixture
def process(make_process: MakeProcess) -> WorkerProcess:
    return make_process()


def hold(process: WorkerProcess, name: str = "report", event_type: Any = None, **event: Any) -> Any:
    """A job that the process has claimed and not started."""
    document = new_job_document(at=process.clock.now(), type=name, **event)
    process.store.new_jobs.accept([document])
    (job,) = process.store.claims.claim([document["_id"]], process.identity.id, process.clock.now())
    event_type = event_type or process._catalog.get(name)
    held = replace(make_held(event_type), job=job)
    process._registry.add([held])
    return held


def status(process: WorkerProcess, held: Any) -> tuple[str, int]:
    document = process.store.requests.get(held.job.id)
    return document["status"], document["attempts"]


# heartbeat


def test_a_process_says_who_it_is_before_it_claims_anything(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    (worker,) = workers.alive()
    assert (worker["_id"], worker["pid"]) == (process.identity.id, os.getpid())
    assert worker["pid_started"] == pid_started(os.getpid())
    assert worker["process_space"] == process_space()


def test_a_heartbeat_tells_how_many_jobs_are_held(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    hold(process)
    process.beat()
    assert workers.alive()[0]["processing"] == 1


def test_a_lapsed_lease_gives_back_what_has_not_started(process: WorkerProcess) -> None:
    waiting, running = hold(process), hold(process)
    process._registry.start(running.job.id)
    process._lease.renew(time.monotonic() - 60)
    process.beat()
    assert eventually(lambda: status(process, waiting) == ("pending", 0))
    assert status(process, running) == ("processing", 1)


def test_a_steady_heartbeat_gives_nothing_back(process: WorkerProcess) -> None:
    held = hold(process)
    process.beat()
    process.beat()
    assert process._committer.flush(1)
    assert status(process, held) == ("processing", 1)


# look


def test_a_clients_wish_to_cancel_reaches_the_handler(process: WorkerProcess) -> None:
    held, other = hold(process), hold(process)
    process.store.requests.cancel(held.job.id, NOW)
    held.since -= 1.0  # jobs that have just begun are not asked about
    process.look()
    assert (held.cancelled, other.cancelled) == (True, False)


def test_the_documents_of_processes_seen_to_be_gone_are_removed(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = process_space()
    mine = {"process_space": here, "pid": os.getpid(), "pid_started": pid_started(os.getpid())}
    for name, over in {
        "gone": mine | {"pid": child.pid, "pid_started": 5},
        "another with its pid": mine | {"pid_started": 5},
        "alive": mine,
        "elsewhere": mine | {"process_space": "elsewhere", "pid": child.pid},
    }.items():
        workers.beat(make_worker(name, **over), processing=0)
    process.look()
    assert {w["_id"] for w in workers.all()} == {"alive", "elsewhere", process.identity.id}


def test_its_position_is_among_the_living_however_many_have_died(
    process: WorkerProcess, workers: WorkerStore, database: Database[Any]
) -> None:
    workers.beat(make_worker("0", process_space="elsewhere"), processing=0)
    database["workers"].update_one({"_id": "0"}, {"$set": {"heartbeat_at": ago(100)}})
    dead = database["workers"].find_one({"_id": "0"})
    assert dead is not None
    database["workers"].insert_many(dead | {"_id": f"0-{n:05}"} for n in range(1_100))
    process._supply.position = (5, 9)
    process.look()
    assert process._supply.position == (0, 1)


def test_the_lead_of_a_process_that_is_gone_is_taken_over_at_once(
    make_process: MakeProcess, workers: WorkerStore, database: Database[Any]
) -> None:
    gone = LeaderLease(database, "gone", 60)
    assert gone.renew()
    process = make_process()
    assert not process._leader.is_held
    workers.beat(
        make_worker("gone", process_space=process_space(), pid=1, pid_started=5), processing=0
    )
    process.look()
    assert process._leader.is_held


def test_a_process_knows_its_place_among_the_living(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    for name in ("0 first", "zz last"):
        workers.beat(make_worker(name), processing=0)
    process.look()
    assert process._supply.position == (1, 3)


def test_suspects_are_noticed(process: WorkerProcess) -> None:
    process.look()
    assert not process._supply.suspects_wait.is_set()
    document = accept(process.store)
    process._stores._database["jobs"].update_one({"_id": document["_id"]}, {"$set": {"company": 1}})
    process.look()
    assert process._supply.suspects_wait.is_set()


def test_where_nobody_died_for_long_suspects_are_looked_for_now_and_then(
    process: WorkerProcess, workers: WorkerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(process.store.waiting, "suspects", lambda *_: looks.append(1) or [])
    process._suspects_vigil._awake_until = 0.0
    workers.beat(make_worker("a neighbour"), processing=0)
    process.look()
    process.look()
    assert len(looks) == 1
    workers.remove("a neighbour")
    process.look()
    process.look()
    assert len(looks) == 3


def test_a_run_stuck_beyond_its_limit_times_out_and_the_process_exits(
    process: WorkerProcess, exits: list[int]
) -> None:
    held, waiting = hold(process, max_attempts=1), hold(process)
    process._registry.start(held.job.id)
    held.deadline = time.monotonic() - 60
    with pytest.raises(Exited):
        process.look()
    assert exits == [70]
    assert status(process, held) == ("failed", 1)
    assert process.store.requests.get(held.job.id)["error"]["reason"] == "timeout"
    assert status(process, waiting) == ("pending", 0)


def test_who_blocks_the_loop_pays_for_it_and_his_neighbours_do_not(
    process: WorkerProcess, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call in C can't be interrupted: it ends with its process."""
    ends = threading.Event()

    async def handler(payload: Any, _context: Any) -> None:
        if "blocks" in payload:
            ends.wait(20)
        await asyncio.sleep(20)

    monkeypatch.setattr("service.worker.running.event_loop._BLOCKED_SECONDS", 0.2)
    event_type = make_type("email", handler)
    neighbour, blocking = (
        hold(process, "email", payload=payload, event_type=event_type)
        for payload in ({}, {"blocks": True})
    )
    for held in (neighbour, blocking):
        process.runner.run(held.job.id)
    eventually(lambda: process.runner.loop.is_blocked)
    neighbour.deadline = time.monotonic() - 60
    with pytest.raises(Exited):
        process.look()
    ends.set()
    assert exits == [70]
    assert status(process, neighbour) == ("pending", 0)
    assert status(process, blocking) == ("pending", 1)
    (entry,) = process.store.requests.get(blocking.job.id)["history"]
    assert (entry["outcome"], "event loop" in entry["error"]["message"]) == ("timeout", True)


def test_a_run_beyond_its_limit_has_a_grace(process: WorkerProcess, exits: list[int]) -> None:
    held = hold(process)
    process._registry.start(held.job.id)
    held.deadline = time.monotonic() - 1
    process.look()
    assert exits == []


def test_a_process_that_gives_up_exits_whatever_its_goodbye_comes_to(
    process: WorkerProcess, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("as asked")

    held = hold(process)
    process._registry.start(held.job.id)
    held.deadline = time.monotonic() - 60
    with monkeypatch.context() as broken:
        broken.setattr(process._leader, "resign", fail)
        with pytest.raises(Exited):
            process.look()
    assert exits == [70]


@pytest.mark.parametrize("which", ["committer", "consumer", "worker"])
def test_a_process_that_lost_a_thread_exits(
    process: WorkerProcess, exits: list[int], which: str
) -> None:
    dead = threading.Thread(target=lambda: None)
    dead.start()
    dead.join(5)
    if which == "committer":
        process._committer.stop()
        process._committer.join(5)
    elif which == "consumer":
        process._worker.consumers["default"] = dead  # type: ignore[assignment]
    else:
        process._worker.workers.append(dead)  # type: ignore[arg-type]
    with pytest.raises(Exited):
        process.look()
    assert exits == [70]


def test_a_process_whose_parent_is_gone_exits(
    process: WorkerProcess, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(Exited):
        process.look()
    assert exits == [70]


# Redis


def test_redis_being_away_and_back_is_noticed(process: WorkerProcess, settings: Settings) -> None:
    process.look_at_redis()
    assert not process._supply.redis_away.is_set()
    there = process._broker.client
    nowhere = redis_client.connect(
        replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    )
    process._broker.client = nowhere
    process.look_at_redis()
    assert process._supply.redis_away.is_set()
    process._broker.client = there
    process.look_at_redis()
    assert not process._supply.redis_away.is_set()
    nowhere.close()


# the sweep


def test_only_the_leader_sweeps(make_process: MakeProcess, store: JobStore) -> None:
    leader, other = make_process(), make_process()
    lost = claim(store, accept(store)["_id"], worker="gone")
    other.sweep()
    assert store.requests.get(lost.id)["status"] == "processing"
    leader.sweep()
    assert store.requests.get(lost.id)["status"] == "pending"


def test_a_process_that_stops_leaves_the_lead_at_once(make_process: MakeProcess) -> None:
    leader, other = make_process(), make_process()
    leader.drain()
    other.beat()
    assert other._leader.is_held
    assert not leader._leader.is_held


def test_a_process_that_stops_takes_no_lead_over_from_a_neighbour_that_is_gone(
    make_process: MakeProcess, workers: WorkerStore
) -> None:
    leader, other = make_process(), make_process()
    leader.drain()
    workers.beat(make_worker("gone", process_space=process_space(), pid_started=5), processing=0)
    leader.look()
    assert "gone" not in {w["_id"] for w in workers.all()}
    other.beat()
    assert other._leader.is_held


def test_right_after_an_outage_nobody_is_dead_for_an_old_heartbeat(
    process: WorkerProcess, workers: WorkerStore, store: JobStore
) -> None:
    workers.beat(make_worker("late"), processing=1)
    old = {"$set": {"heartbeat_at": process.clock.now().replace(year=2020)}}
    process._stores._database["workers"].update_one({"_id": "late"}, old)
    job = claim(store, accept(store)["_id"], worker="late")
    process.sweep()
    assert store.requests.get(job.id)["status"] == "processing"
    process._well_since = time.monotonic() - 60
    process.sweep()
    assert store.requests.get(job.id)["status"] == "pending"


def test_a_beat_missed_for_long_starts_the_patience_anew(process: WorkerProcess) -> None:
    process._well_since = time.monotonic() - 60
    process.beat()
    assert time.monotonic() - process._well_since > 50
    process._lease.renew(time.monotonic() - 5)
    process.beat()
    assert time.monotonic() - process._well_since < 5


# what follows an outcome


def test_a_failed_attempt_is_hinted_at_again_after_its_wait(process: WorkerProcess) -> None:
    held = hold(process)
    process._committer.put(
        held, ending(Outcome.ERROR, finished_at=process.clock.now(), delay_ms=50)
    )
    client = process._broker.client
    assert len(eventually(lambda: hints_in(client))) == 1
    assert status(process, held) == ("pending", 1)


def test_a_failed_job_sends_its_dead_letter(process: WorkerProcess) -> None:
    held = hold(process)
    process._committer.put(held, ending(Outcome.REJECTED, finished_at=process.clock.now()))
    client = process._broker.client
    assert eventually(lambda: client.llen("dramatiq:dead_letter") == 1)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.CANCELLED])
def test_nothing_follows_any_other_end(process: WorkerProcess, outcome: Outcome) -> None:
    held = hold(process)
    process._committer.put(held, ending(outcome, finished_at=process.clock.now()))
    assert eventually(lambda: status(process, held)[0] == outcome)
    assert process._committer.flush(2)
    assert process._broker.client.keys("dramatiq:*.msgs") == []
    assert hints_in(process._broker.client) == []


def test_progress_is_written_without_keeping_the_handler(process: WorkerProcess) -> None:
    held = hold(process)
    for number in range(100):
        process._progress(held, {"done": number})
    assert eventually(
        lambda: process.store.requests.get(held.job.id).get("progress") == {"done": 99}
    )


def test_progress_that_cannot_be_stored_harms_nobody_elses(process: WorkerProcess) -> None:
    bad, good = hold(process), hold(process)
    process._progress(bad, 2**63)
    process._progress(good, 1)
    assert eventually(lambda: process.store.requests.get(good.job.id).get("progress") == 1)


# stop


def test_a_process_that_stops_gives_back_what_has_not_started_and_says_goodbye(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    held = hold(process)
    assert process.finish()
    assert status(process, held) == ("pending", 0)
    assert workers.all() == []
    assert [h.job_id for h in hints_in(process._broker.client)] == [held.job.id]


@pytest.mark.parametrize("during", ["read_clock", "beat"])
def test_a_heartbeat_that_is_under_way_does_not_outlive_the_goodbye(
    process: WorkerProcess,
    workers: WorkerStore,
    monkeypatch: pytest.MonkeyPatch,
    during: str,
) -> None:
    owner: Any = process._stores if during == "read_clock" else process._stores.workers
    call, begun, go_on = getattr(owner, during), threading.Event(), threading.Event()

    def late(*arguments: Any) -> None:
        begun.set()
        assert go_on.wait(5)
        call(*arguments)

    monkeypatch.setattr(owner, during, late)
    beat, goodbye = (threading.Thread(target=f) for f in (process.beat, process.finish))
    beat.start()
    assert begun.wait(5)
    goodbye.start()
    goodbye.join(0.5)
    go_on.set()
    beat.join(5)
    goodbye.join(5)
    assert workers.all() == []


def test_after_its_goodbye_a_process_counts_on_nothing(process: WorkerProcess) -> None:
    process.finish()
    process._lease.renew(time.monotonic() - 60)
    process.beat()
    assert not process._lease.is_valid


def test_a_process_lets_no_heartbeat_keep_it_from_stopping(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MongoDB hangs, the end of the lease tells the others."""
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(process._stores.workers, "beat", lambda *_: begun.set() or go_on.wait(20))
    beat = threading.Thread(target=process.beat)
    beat.start()
    assert begun.wait(5)
    began = time.monotonic()
    process.finish()
    assert time.monotonic() - began < 4
    go_on.set()
    beat.join(5)


def test_a_process_that_stops_lets_its_jobs_finish(make_process: MakeProcess) -> None:
    process = make_process(shutdown_grace_seconds=5.0)
    held = hold(process)
    process._registry.start(held.job.id)
    end = ending(Outcome.COMPLETED, finished_at=process.clock.now())
    threading.Timer(0.2, process._committer.put, [held, end]).start()
    began = time.monotonic()
    assert process.finish()
    assert time.monotonic() - began < 3
    assert status(process, held) == ("completed", 1)


def test_what_does_not_finish_in_time_is_given_back_uncharged(process: WorkerProcess) -> None:
    held = hold(process)
    process._registry.start(held.job.id)
    assert not process.finish()
    assert status(process, held) == ("pending", 0)
    assert process.store.requests.get(held.job.id)["history"][0]["outcome"] == "released"


def test_what_a_claim_under_way_wins_while_the_process_stops_is_given_back(
    make_process: MakeProcess,
) -> None:
    process = make_process()
    document = new_job_document(at=process.clock.now(), type="report")
    process.store.new_jobs.accept([document])
    consumer = process.consumer(process._broker, "default")
    claims = process.store.claims.claim
    claiming, stopped = threading.Event(), threading.Event()

    def slow_claim(*args: Any, **options: Any) -> Any:
        claiming.set()
        stopped.wait(5)
        return claims(*args, **options)

    process.store.claims.claim = slow_claim  # type: ignore[method-assign]
    process._broker.enqueue_many([hint_of(document)])
    taking = threading.Thread(target=lambda: next(consumer))
    taking.start()
    assert claiming.wait(5)
    stopping = threading.Thread(target=process.finish)
    stopping.start()
    threading.Timer(0.3, stopped.set).start()
    stopping.join(10)
    taking.join(10)
    assert process.store.requests.get(document["_id"])["status"] == "pending"
    assert process.store.requests.get(document["_id"])["attempts"] == 0


def test_a_second_wish_to_stop_is_told_from_the_first(process: WorkerProcess) -> None:
    assert process.ask_to_stop()
    assert not process.ask_to_stop()
    assert eventually(process._supply.draining.is_set)


def test_tidying_frees_what_the_dead_left(
    process: WorkerProcess, workers: WorkerStore, store: JobStore
) -> None:
    workers.beat(make_worker("long dead"), processing=0)
    old = {"$set": {"heartbeat_at": process.clock.now().replace(year=2020)}}
    process._stores._database["workers"].update_one({"_id": "long dead"}, old)
    stray = claim(store, accept(store)["_id"], worker=process.identity.id)
    failed(store)
    process.tidy()
    assert [w["_id"] for w in workers.all()] == [process.identity.id]
    assert store.requests.get(stray.id)["status"] == "pending"
