"""What a worker process keeps an eye on: clients' wishes to cancel, suspects, Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra.servers import free_port
from service.queue import redis_client
from service.settings import Settings
from service.store import WorkerStore
from service.worker.process import WorkerProcess
from tests.contract.worker_process import hold
from tests.factories import NOW, accept, make_worker


def test_a_clients_wish_to_cancel_reaches_the_handler(process: WorkerProcess) -> None:
    held, other = hold(process), hold(process)
    process.store.requests.cancel(held.job.id, NOW)
    held.since -= 1.0  # jobs that have just begun are not asked about
    process._cancellations.look()
    assert (held.cancelled, other.cancelled) == (True, False)


def test_suspects_are_noticed(process: WorkerProcess) -> None:
    process._suspects.look()
    assert not process._supply.suspects_wait.is_set()
    document = accept(process.store)
    process._stores._database["jobs"].update_one({"_id": document["_id"]}, {"$set": {"company": 1}})
    process._suspects.look()
    assert process._supply.suspects_wait.is_set()


def test_where_nobody_died_for_long_suspects_are_looked_for_now_and_then(
    process: WorkerProcess, workers: WorkerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(process.store.waiting, "suspects", lambda *_: looks.append(1) or [])
    process._suspects._interval._alert_until = 0.0
    workers.beat(make_worker("a neighbour"), processing=0)
    process._neighbours.look()
    process._suspects.look()
    process._neighbours.look()
    process._suspects.look()
    assert len(looks) == 1
    workers.remove("a neighbour")
    process._neighbours.look()
    process._suspects.look()
    process._neighbours.look()
    process._suspects.look()
    assert len(looks) == 3


def test_redis_being_away_and_back_is_noticed(process: WorkerProcess, settings: Settings) -> None:
    process._redis_monitor.look()
    assert not process._supply.redis_away.is_set()
    there = process._broker.client
    nowhere = redis_client.connect(
        replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    )
    process._broker.client = nowhere
    process._redis_monitor.look()
    assert process._supply.redis_away.is_set()
    process._broker.client = there
    process._redis_monitor.look()
    assert not process._supply.redis_away.is_set()
    nowhere.close()
