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
from tests.databases import emptied, indexed


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
