"""How a worker process stops: nothing that it holds is lost, nothing is charged."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from service.job import Outcome
from service.queue.lanes import Lane
from service.store import WorkerStore
from service.store.documents import hint_of
from service.worker.process import WorkerProcess
from tests.contract.worker_process import MakeProcess, hold, status
from tests.factories import all_workers, attempt_result, eventually, new_job_document


def test_a_process_that_stops_gives_back_what_has_not_started_and_says_goodbye(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    held = hold(process)
    assert process.finish()
    assert status(process, held) == ("pending", 0)
    assert all_workers(workers) == []
    assert process._broker.lanes.listed(Lane("default", "report")) == {held.job.id}


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
    beat, goodbye = (threading.Thread(target=f) for f in (process._heartbeat.beat, process.finish))
    beat.start()
    assert begun.wait(5)
    goodbye.start()
    goodbye.join(0.5)
    go_on.set()
    beat.join(5)
    goodbye.join(5)
    assert all_workers(workers) == []


def test_after_its_goodbye_a_process_counts_on_nothing(process: WorkerProcess) -> None:
    process.finish()
    process._lease.renew(time.monotonic() - 60)
    process._heartbeat.beat()
    assert not process._lease.is_valid


def test_a_process_lets_no_heartbeat_keep_it_from_stopping(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MongoDB hangs, the end of the lease tells the others."""
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(process._stores.workers, "beat", lambda *_: begun.set() or go_on.wait(20))
    beat = threading.Thread(target=process._heartbeat.beat)
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
    process._in_flight.turns.begin(held.job.id)
    end = attempt_result(Outcome.COMPLETED, finished_at=process.clock.now())
    threading.Timer(0.2, process._committer.put, [held, end]).start()
    began = time.monotonic()
    assert process.finish()
    assert time.monotonic() - began < 3
    assert status(process, held) == ("completed", 1)


def test_what_does_not_finish_in_time_is_given_back_uncharged(process: WorkerProcess) -> None:
    held = hold(process)
    process._in_flight.turns.begin(held.job.id)
    assert not process.finish()
    assert status(process, held) == ("pending", 0)
    assert process.store.requests.get(held.job.id)["history"][0]["outcome"] == "released"


def test_what_a_claim_under_way_wins_while_the_process_stops_is_given_back(
    make_process: MakeProcess,
) -> None:
    process = make_process()
    document = new_job_document(at=process.clock.now(), type="report")
    process.store.new_jobs.accept([document])
    claims = process.store.claims.claim
    claiming, stopped = threading.Event(), threading.Event()

    def slow_claim(*args: Any, **options: Any) -> Any:
        claiming.set()
        stopped.wait(5)
        return claims(*args, **options)

    process.store.claims.claim = slow_claim  # type: ignore[method-assign]
    process._broker.enqueue_many([hint_of(document)])
    process._supply_threads.start()
    assert claiming.wait(5)
    stopping = threading.Thread(target=process.finish)
    stopping.start()
    threading.Timer(0.3, stopped.set).start()
    stopping.join(10)
    process._supply_threads.supplier.join(10)
    assert process.store.requests.get(document["_id"])["status"] == "pending"
    assert process.store.requests.get(document["_id"])["attempts"] == 0


def test_a_second_wish_to_stop_is_told_from_the_first(process: WorkerProcess) -> None:
    assert process.ask_to_stop()
    assert not process.ask_to_stop()
    assert eventually(process._supply.draining.is_set)
