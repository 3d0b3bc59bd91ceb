"""Servers that answer, and don't let this system in: it says so, and goes on once they do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from pymongo import MongoClient
from pymongo.database import Database

from infra.servers import HOST, REPLICA_SET, MongoServer, RedisServer, free_port
from tests.faults.api import Api
from tests.faults.processes import Process
from tests.faults.stack import QUICK
from tests.faults.waiting import eventually

pytestmark = pytest.mark.e2e
PASSWORD = "hunter2"
ROLES = [{"role": "readWrite", "db": "events"}]


class ClosedMongo(MongoServer):
    """With access control: before there is a user, it only lets itself be made a replica set."""

    def _form_replica_set(self, admin: Database[dict[str, Any]]) -> None:
        members = [{"_id": 0, "host": self._address}]
        admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})


@pytest.fixture
def mongo(tmp_path: Path) -> Iterator[MongoServer]:
    """Its only user is `root`."""
    key = tmp_path / "key"
    key.write_text("c2VjcmV0" * 8)
    key.chmod(0o600)
    with ClosedMongo(tmp_path / "mongo", extra=["--auth", "--keyFile", str(key)]) as server:
        with direct(server) as client:
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        yield server


@pytest.fixture
def closed_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        with redis.Redis(HOST, server.port) as client:
            client.config_set("requirepass", "another")
        yield server


def direct(server: MongoServer, **login: str) -> MongoClient[dict[str, Any]]:
    return MongoClient(HOST, server.port, directConnection=True, **login)


def warnings(process: Process, words: str) -> list[str]:
    """Lines of the log, warnings and worse, that have these words."""
    found = []
    for text in process.log.read_text().splitlines():
        line = json.loads(text)
        if line["level"] in {"warning", "error", "critical"} and words in line["event"]:
            found.append(line["event"])
    return found


def test_a_refused_login_is_said_and_not_at_every_try_and_mended_at_the_servers(
    tmp_path: Path, mongo: MongoServer, closed_redis: RedisServer
) -> None:
    port = free_port()
    env = {
        **QUICK,
        "LOG_FORMAT": "json",
        "PORT": str(port),
        "MONGODB_URI": f"mongodb://app:{PASSWORD}@{HOST}:{mongo.port}/events?authSource=admin",
        "REDIS_URL": f"redis://:{PASSWORD}@{HOST}:{closed_redis.port}/0",
    }
    with ExitStack() as started:
        processes = []
        for kind in ("web", "worker"):
            (log := tmp_path / f"{kind}.log").touch()
            processes.append(process := Process(kind, env, log))
            process.start()
            started.callback(process.stop)
        web, worker = processes
        for process in processes:
            eventually(
                lambda p=process: warnings(p, "Authentication failed"), "it says why", within=20
            )
        eventually(lambda: warnings(web, "started without MongoDB"), "web goes on", within=20)
        # A dozen tries later: after a refusal the driver takes the server for unusable for a while,
        # which is one more reason.
        assert len(warnings(web, "Authentication failed")) <= 2
        assert len(warnings(worker, "Authentication failed")) <= 2

        with direct(mongo, username="root", password=PASSWORD) as client:
            client.admin.command("createUser", "app", pwd=PASSWORD, roles=[])
        for process in processes:
            eventually(lambda p=process: warnings(p, "not authorized"), "it says why", within=20)
        with direct(mongo, username="root", password=PASSWORD) as client:
            client.admin.command("grantRolesToUser", "app", roles=ROLES)
        for process in processes:
            eventually(
                lambda p=process: warnings(p, "invalid username-password pair"),
                "it says what is wrong with Redis",
                within=20,
            )
        with redis.Redis(HOST, closed_redis.port, password="another") as client:
            client.config_set("requirepass", PASSWORD)
        api = Api(port)
        event = api.post("simulate")
        api.wait_final(event)
        api.close()
        for process in processes:
            assert PASSWORD not in process.log.read_text()
