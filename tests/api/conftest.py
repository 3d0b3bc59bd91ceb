"""One web process and one database for all of these tests; a test that breaks something starts its
own. There is no worker: a test that needs an event processed does what a worker does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from pymongo.collection import Collection
from pymongo.database import Database

from infra.servers import MongoServer, RedisServer
from service.queue import redis_client
from service.settings import Settings
from service.store import JobStore
from tests.api.server import Web, running_web
from tests.databases import emptied
from tests.factories import eventually

DATABASE = "api"


@pytest.fixture(scope="session")
def web_settings(mongo_server: MongoServer, redis_server: RedisServer) -> Settings:
    """Redis's database is its own as well: hints of delayed events come up to a minute later, when
    other tests are at work."""
    redis_url = redis_server.url.removesuffix("/0") + "/1"
    return replace(Settings(), redis_url=redis_url, mongodb_uri=mongo_server.url_of(DATABASE))


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory, web_settings: Settings) -> Iterator[Web]:
    log = tmp_path_factory.mktemp("web") / "web.log"
    with running_web(log, web_settings, BODY_TIMEOUT_SECONDS="1") as web:
        yield web
        web.stop()
    assert '"unexpected"' not in log.read_text()


@pytest.fixture
def database(web: Web, shared_client: Any) -> Database[Any]:
    """The web's own, with nothing in it."""
    return emptied(shared_client[DATABASE])


@pytest.fixture
def counters(database: Database[Any]) -> Collection[Any]:
    """The counters, empty: what earlier tests posted has been counted, which takes 20 ms."""
    counters = database["counters"]

    def stay_empty() -> bool:
        counters.delete_many({})
        time.sleep(0.1)  # nothing tells that no count is under way
        return counters.find_one() is None

    eventually(stay_empty)
    return counters


@pytest.fixture
def jobs(database: Database[Any]) -> JobStore:
    return JobStore(database)


@pytest.fixture
def hints(web_settings: Settings) -> Iterator[redis.Redis]:
    """The web's Redis, with nothing in it."""
    client = redis_client.connect(web_settings)
    client.flushall()
    yield client
    client.close()
