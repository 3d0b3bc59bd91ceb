"""Three real mongods as one replica set on loopback."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from infra.servers import HOST, REPLICA_SET, MongoServer
from tests.faults.waiting import eventually

_ELECTION_MS = 2_000


class Member(MongoServer):
    """Ready as soon as it answers: the set is formed by all together."""

    def _is_ready(self) -> bool:
        with _direct(self.port) as client, suppress(PyMongoError):
            return bool(client.admin.command("ping")["ok"])
        return False


class ReplicaSet:
    """Has the face of one server, as far as `Stack` looks at it."""

    def __init__(self, folder: Path, members: int = 3) -> None:
        self.members = [Member(folder / f"node-{i}") for i in range(members)]
        self.data_dir = folder
        self._exit = ExitStack()

    @property
    def port(self) -> int:
        return self.members[0].port

    @property
    def running(self) -> bool:
        return all(member.running for member in self.members)

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{member.port}" for member in self.members)
        return f"mongodb://{hosts}/pulsequeue?replicaSet={REPLICA_SET}"

    def __enter__(self) -> Self:
        for member in self.members:
            self._exit.enter_context(member)
        hosts = [
            {"_id": i, "host": f"{HOST}:{member.port}"} for i, member in enumerate(self.members)
        ]
        config = {
            "_id": REPLICA_SET,
            "members": hosts,
            "settings": {"electionTimeoutMillis": _ELECTION_MS},
        }
        with _direct(self.port) as client:
            client.admin.command("replSetInitiate", config)
        self.wait_primary()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def start(self) -> None:
        """Starts the members that don't run."""
        for member in self.members:
            if not member.running:
                member.start()
        self.wait_primary()

    def thaw(self) -> None:
        for member in self.members:
            if member.running:
                member.thaw()

    def primary(self) -> Member | None:
        for member in self.members:
            if member.running and _says(member)["isWritablePrimary"]:
                return member
        return None

    def wait_primary(self) -> Member:
        found = eventually(self.primary, "there is a primary", within=40)
        assert found is not None
        return found

    def step_down(self) -> None:
        """The primary gives up its part for a while; another member takes it."""
        with _direct(self.wait_primary().port) as client, suppress(PyMongoError):
            client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)


def _says(member: Member) -> dict[str, Any]:
    with _direct(member.port) as client, suppress(PyMongoError):
        return dict(client.admin.command("hello"))
    return {"isWritablePrimary": False}


def _direct(port: int) -> MongoClient[dict[str, Any]]:
    return MongoClient(HOST, port, directConnection=True, timeoutMS=2_000)
