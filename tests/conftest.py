"""Fixtures in layers: real servers, once a run; a fresh database a test; the stores on it.

`TEST_SERVERS` says which programs the servers are: see `infra/test`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import fields, replace
from itertools import count
from typing import Any

import hypothesis
import pytest
import redis
from pymongo.database import Database

from infra.servers import MongoServer, RedisServer, Server
from service.clock import ServerClock
from service.queue import redis_client
from service.settings import Settings
from service.store import Counters, JobStore, Listing, WorkerStore, mongo
from service.store.documents import Retention
from tests import sharing
from tests.databases import indexed

Document = dict[str, Any]
RETENTION = Retention(completed_seconds=1_000, failed_seconds=2_000, cancelled_seconds=3_000)
_numbers = count(1)
# How quick the machine is at the moment is not what the properties are about.
hypothesis.settings.register_profile(
    "tests",
    parent=hypothesis.settings.get_profile(hypothesis.settings.get_current_profile_name()),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    deadline=None,
)
hypothesis.settings.load_profile("tests")
_SERVERS = {"packaged": False, "path": True}


def pytest_configure() -> None:
    """Tests mean the same everywhere: whatever PATH has, they take the servers that are pinned."""
    wanted = os.environ.get("TEST_SERVERS") or "packaged"
    if wanted not in _SERVERS:
        raise pytest.UsageError(f"TEST_SERVERS={wanted} is none of: {', '.join(_SERVERS)}")
    Server.path_first = _SERVERS[wanted]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return sharing.scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[Any, Any, Any]:
    return sharing.sendable((yield))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        sharing.longest_first(items)


def pytest_report_header() -> list[str]:
    return [f"{server.name}: {server.find_program()}" for server in (RedisServer, MongoServer)]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell that started the tests has set must not change what they find."""
    for setting in fields(Settings):
        for name in (setting.name.upper(), *setting.metadata["also"]):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    with MongoServer(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture
def settings(redis_server: RedisServer, mongo_server: MongoServer) -> Settings:
    """Settings with the servers of this run, and a database that no other test has."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    return Settings(redis_url=redis_server.url, mongodb_uri=mongo_server.url_of(name))


@pytest.fixture(scope="session")
def shared_client(mongo_server: MongoServer) -> Iterator[Any]:
    """One MongoDB client for all tests that only need a database."""
    database = mongo.connect(replace(Settings(), mongodb_uri=mongo_server.url))
    yield database.client
    database.client.close()


@pytest.fixture
def database(settings: Settings, shared_client: Any) -> Iterator[Database[Document]]:
    """A fresh database with its indexes."""
    with indexed(shared_client, settings.database) as database:
        yield database


@pytest.fixture
def clock(database: Database[Document]) -> ServerClock:
    """MongoDB's clock, read once."""
    clock = ServerClock()
    mongo.read_clock(database, clock)
    return clock


@pytest.fixture
def store(database: Database[Document]) -> JobStore:
    return JobStore(database, retention=RETENTION)


@pytest.fixture
def listing(database: Database[Document]) -> Listing:
    return Listing(database)


@pytest.fixture
def workers(database: Database[Document]) -> WorkerStore:
    return WorkerStore(database, lease_seconds=8)


@pytest.fixture
def counters(database: Database[Document]) -> Counters:
    return Counters(database)


@pytest.fixture
def redis_connection(settings: Settings) -> Iterator[redis.Redis]:
    """A client of the run's Redis, which is empty."""
    client = redis_client.connect(settings)
    client.flushall()
    yield client
    client.close()
