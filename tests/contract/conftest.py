"""One database for all of these tests, emptied before each: making its indexes takes longer than
most of them, and none leaves anybody behind who would write to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from queue import PriorityQueue
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from pymongo.database import Database

from actors import dead_letter
from infra.servers import MongoServer
from service.settings import Settings
from service.worker.build import build_broker
from service.worker.lifecycle import Lifecycle
from service.worker.process import WorkerProcess
from tests.contract.worker_process import Exited, MakeProcess
from tests.databases import emptied, indexed
from tests.factories import done, done_async, make_catalog, make_type


@pytest.fixture(scope="session")
def indexed_database(shared_client: Any) -> Iterator[Database[Any]]:
    with indexed(shared_client, "contract") as database:
        yield database


@pytest.fixture
def database(indexed_database: Database[Any]) -> Database[Any]:
    return emptied(indexed_database)


@pytest.fixture
def settings(settings: Settings, mongo_server: MongoServer) -> Settings:
    return replace(settings, mongodb_uri=mongo_server.url_of("contract"))


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Exited

    monkeypatch.setattr(os, "_exit", leave)
    return codes


@pytest.fixture
def make_process(
    settings: Settings, database: Database[Any], redis_connection: redis.Redis, exits: list[int]
) -> Iterator[MakeProcess]:
    """A worker process without Dramatiq's threads, and without the scheduler of its beats."""
    made: list[WorkerProcess] = []

    def make(**over: Any) -> WorkerProcess:
        changed = replace(settings, **({"shutdown_grace_seconds": 0.2} | over))
        types = make_catalog([make_type("email", done_async), make_type("report", done)])
        broker = build_broker(changed, types, dead_letter.declare)
        (lifecycle,) = [m for m in broker.middleware if isinstance(m, Lifecycle)]
        threads: Any = SimpleNamespace(
            consumer_whitelist=None,
            worker_threads=4,
            consumers={},
            workers=[],
            work_queue=PriorityQueue(),
        )
        process = lifecycle._process = WorkerProcess(changed, types, broker, threads)
        made.append(process)
        process.start()
        return process

    yield make
    for process in made:
        process.finish()
        process._stores.close()
        process._broker.close()


@pytest.fixture
def process(make_process: MakeProcess) -> WorkerProcess:
    return make_process()
