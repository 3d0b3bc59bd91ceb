"""Reads, each on mongomock and on real MongoDB: what `./infra/test --quick` shows without a server
is what a server says. What mongomock can't do has its tests on real MongoDB alone: `$$NOW`, updates
by pipeline, whatever goes by `Database.command`, and `find_one` with a hint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mongomock
import pytest
from pymongo.database import Database

from service.settings import Settings
from service.store import Stores
from tests import databases
from tests.reads import raw_mongomock

BOTH = ["mongomock", pytest.param("mongodb", marks=pytest.mark.mongodb)]


@pytest.fixture(params=BOTH)
def database(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database[Any]]:
    """An empty one."""
    collections = mongomock.collection.Collection
    monkeypatch.setattr(collections, "with_options", raw_mongomock.with_options)
    monkeypatch.setattr(collections, "codec_options", raw_mongomock.OPTIONS)
    if request.param == "mongodb":
        yield request.getfixturevalue("emptied")
    else:
        with mongomock.MongoClient(tz_aware=True) as client:
            yield client["reads"]


@pytest.fixture
def emptied(indexed_database: Database[Any]) -> Database[Any]:
    return databases.emptied(indexed_database)


@pytest.fixture(scope="session")
def indexed_database(shared_client: Any) -> Iterator[Database[Any]]:
    with databases.indexed(shared_client, "reads") as database:
        yield database


@pytest.fixture
def stores(database: Database[Any]) -> Stores:
    return Stores(database, Settings())
