"""One database for all of these tests, emptied before each: making its indexes takes longer than
most of them, and none leaves anybody behind who would write to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pymongo.database import Database

from infra.servers import MongoServer
from service.settings import Settings
from service.store import ensure_indexes


@pytest.fixture(scope="session")
def indexed_database(mongo_server: MongoServer, shared_client: Any) -> Iterator[Database[Any]]:
    database: Database[Any] = shared_client["contract"]
    ensure_indexes(database)
    yield database
    shared_client.drop_database(database.name)


@pytest.fixture
def database(indexed_database: Database[Any]) -> Database[Any]:
    for name in indexed_database.list_collection_names():
        indexed_database[name].delete_many({})
    return indexed_database


@pytest.fixture
def settings(settings: Settings, mongo_server: MongoServer) -> Settings:
    return replace(settings, mongodb_uri=mongo_server.url_of("contract"))
