"""What the driver's errors say of the server, by errors that a real one causes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from infra.servers import MongoServer, free_port
from service.errors import StoreLate, StoreUnavailable, StoreUnreachable
from service.settings import Settings
from service.store import JobStore, mongo
from service.store.guard import mongo_errors
from tests.factories import accept

SLEEPS = {"$where": "sleep(600) || true"}


def test_a_question_that_takes_too_long_is_late_and_nothing_else(
    database: Database[Any], store: JobStore
) -> None:
    accept(store)
    with pytest.raises(StoreLate), mongo_errors(), mongo.deadline(0.2):
        database["jobs"].find_one(SLEEPS)


def test_a_question_that_the_server_gives_up_is_late_too(
    database: Database[Any], store: JobStore, mongo_server: MongoServer
) -> None:
    accept(store)
    with MongoClient[Any](mongo_server.url) as client, pytest.raises(StoreLate), mongo_errors():
        list(client[database.name]["jobs"].find(SLEEPS).max_time_ms(100))


def test_a_server_that_is_not_there_is_unreachable(settings: Settings) -> None:
    uri = f"mongodb://127.0.0.1:{free_port()}/nowhere?directConnection=true"
    away = mongo.connect(replace(settings, mongodb_uri=uri, mongodb_timeout_ms=300))
    with pytest.raises(StoreUnreachable), mongo_errors():
        away["jobs"].find_one()
    away.client.close()


def test_what_the_server_refuses_is_neither(database: Database[Any]) -> None:
    with pytest.raises(StoreUnavailable) as raised, mongo_errors():
        database["jobs"].find_one({"$nonsense": 1})
    assert type(raised.value) is StoreUnavailable
