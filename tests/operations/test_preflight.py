"""The start-up warnings, on servers that deserve them and on servers that don't."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from pymongo import MongoClient
from pymongo.database import Database

from infra.servers import MongoServer, RedisServer, free_port
from service.clock import ServerClock
from service.queue import redis_client
from service.runtime import preflight
from service.settings import Settings
from service.store import mongo
from service.store.audit import Audit
from tests.factories import eventually

Document = dict[str, Any]


def test_servers_as_they_should_be_give_no_warning(
    database: Database[Document], redis_connection: redis.Redis, clock: ServerClock
) -> None:
    assert preflight.warnings(Audit(database), redis_connection, clock) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--maxmemory-policy", "allkeys-lru"], "allkeys-lru"),
        (["--appendonly", "no"], "keeps nothing over a restart"),
    ],
)
def test_a_redis_that_may_lose_messages_is_warned_of(
    options: list[str], words: str, tmp_path: Path, database: Database[Document], clock: ServerClock
) -> None:
    with RedisServer(tmp_path, extra=options) as server:
        client = redis_client.connect(replace(Settings(), redis_url=server.url))
        (warning,) = preflight.warnings(Audit(database), client, clock)
        client.close()
    assert words in warning


def test_snapshots_are_persistence_too(
    tmp_path: Path, database: Database[Document], clock: ServerClock
) -> None:
    options = ["--appendonly", "no", "--save", "60", "1"]
    with RedisServer(tmp_path, extra=options) as server:
        client = redis_client.connect(replace(Settings(), redis_url=server.url))
        assert preflight.warnings(Audit(database), client, clock) == []
        client.close()


def test_a_service_that_hides_its_configuration_is_not_judged(
    tmp_path: Path, database: Database[Document], clock: ServerClock
) -> None:
    options = ["--appendonly", "no", "--rename-command", "CONFIG", ""]
    with RedisServer(tmp_path, extra=options) as server:
        client = redis_client.connect(replace(Settings(), redis_url=server.url))
        assert preflight.warnings(Audit(database), client, clock) == []
        client.close()


class SingleMongoServer(MongoServer):
    """Without a replica set, as many a first installation is."""

    def _arguments(self) -> list[str]:
        arguments = super()._arguments()
        at = arguments.index("--replSet")
        return arguments[:at] + arguments[at + 2 :]

    def _is_ready(self) -> bool:
        with MongoClient[Document]("127.0.0.1", self.port, serverSelectionTimeoutMS=500) as client:
            try:
                return bool(client.admin.command("hello")["isWritablePrimary"])
            except Exception:
                return False


def test_a_mongodb_without_a_replica_set_is_warned_of(
    tmp_path: Path, redis_connection: redis.Redis, clock: ServerClock
) -> None:
    with SingleMongoServer(tmp_path) as server:
        uri = f"mongodb://127.0.0.1:{server.port}/pulsequeue"
        database = mongo.connect(replace(Settings(), mongodb_uri=uri))
        (warning,) = preflight.warnings(Audit(database), redis_connection, clock)
        database.client.close()
    assert "without a replica set" in warning


@pytest.mark.parametrize("seconds", [3_600, -3_600])
def test_a_host_clock_that_is_off_is_warned_of(
    seconds: int,
    database: Database[Document],
    redis_connection: redis.Redis,
    clock: ServerClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true_time = time.time
    monkeypatch.setattr("service.clock.time.time", lambda: true_time() + seconds)
    (warning,) = preflight.warnings(Audit(database), redis_connection, clock)
    word = "ahead of" if seconds > 0 else "behind"
    assert warning.startswith(f"this host's clock is 3600.0 s {word} MongoDB's")


def test_servers_that_are_away_neither_warn_nor_raise(clock: ServerClock) -> None:
    away = replace(
        Settings(),
        redis_url=f"redis://127.0.0.1:{free_port()}/0",
        mongodb_uri=f"mongodb://127.0.0.1:{free_port()}/pulsequeue",
        mongodb_timeout_ms=300,
    )
    database = mongo.connect(away)
    assert preflight.warnings(Audit(database), redis_client.connect(away), clock) == []
    database.client.close()


def test_the_warnings_are_logged_without_waiting_for_them(
    tmp_path: Path,
    database: Database[Document],
    clock: ServerClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RedisServer(tmp_path, extra=["--maxmemory-policy", "volatile-lru"]) as server:
        client = redis_client.connect(
            replace(Settings(), redis_url=server.url, redis_timeout_ms=10_000)
        )
        server.freeze()
        began = time.monotonic()
        preflight.warn_soon(Audit(database), client, clock)
        assert time.monotonic() - began < 0.2
        server.thaw()
        eventually(lambda: "volatile-lru" in caplog.text, within=10)
        client.close()
    assert [r.levelno for r in caplog.records if "volatile-lru" in r.message] == [logging.WARNING]
