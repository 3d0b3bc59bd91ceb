"""Worker processes: one document each, renewed by its heartbeat, with the server's clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from pymongo.database import Database

from service.store.guard import mongo_errors
from service.store.mongo import Document

_MOST = 10_000
_LATEST = {"heartbeat_at": -1, "_id": 1}


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker process tells of itself."""

    id: str
    host: str
    pid: int
    process_space: str
    """Where `pid` means something: the same text for processes that can see each other."""
    pid_started: int
    """When the process began, in the kernel's ticks since boot: tells a reused pid."""
    queues: tuple[str, ...]
    threads: int
    version: str


class WorkerStore:
    """The collection `workers`. Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document], lease_seconds: float) -> None:
        self._workers = database["workers"]
        self._lease_ms = int(lease_seconds * 1000)

    def beat(self, worker: Worker, processing: int) -> None:
        """Renews the lease on all that the worker holds."""
        fields = asdict(worker) | {"processing": processing, "queues": list(worker.queues)}
        del fields["id"]
        fields["lanes"] = True  # says that it needs no index of a former version
        with mongo_errors():
            self._workers.update_one(
                {"_id": worker.id},
                {"$set": fields, "$currentDate": {"heartbeat_at": True}},
                upsert=True,
            )

    def watch(self, worker_id: str, now: datetime) -> None:
        """Notes since when the worker would notice a schedule's tick."""
        with mongo_errors():
            self._workers.update_one({"_id": worker_id}, {"$set": {"watching_since": now}})

    def watched_since(self) -> datetime | None:
        """Since when somebody who is alive has been watching; None: nobody says so."""
        with mongo_errors():
            found = self._workers.find_one(
                {"watching_since": {"$exists": True}} | self._fresh(),
                {"watching_since": 1},
                sort=[("watching_since", 1)],
            )
        return None if found is None else found["watching_since"]

    def remove(self, worker_id: str) -> None:
        with mongo_errors():
            self._workers.delete_one({"_id": worker_id})

    def dead_among(self, worker_ids: Iterable[str], believe_heartbeats: bool = True) -> set[str]:
        """Those that have no document, or (if those are believed) whose heartbeat is too old by
        the server's clock.

        Read the holders of jobs before this, never after: a worker writes its document before its
        first claim, so that one which isn't here by now has ended.
        """
        ids = set(worker_ids)
        if not ids:
            return set()
        with mongo_errors():
            found = self._workers.find(
                {"_id": {"$in": list(ids)}, **(self._fresh() if believe_heartbeats else {})},
                {"_id": 1},
            )
            return ids - {d["_id"] for d in found}

    def alive(self) -> list[Document]:
        """The documents of the workers alive, with `age_seconds` of their heartbeat, by id."""
        return self._read(self._fresh(), {"_id": 1})

    def seen_from(self, process_space: str) -> list[Document]:
        """Like `alive`, with the dead whose pid means something there: the latest heartbeats first,
        so that no number of dead hides one who lives."""
        return self._read({"$or": [self._fresh(), {"process_space": process_space}]}, _LATEST)

    def all_know_lanes(self) -> bool:
        """Whether no worker of a version before the index `lanes` is known, dead or alive: one
        that seems dead may come back."""
        with mongo_errors():
            return self._workers.find_one({"lanes": {"$exists": False}}, {"_id": 1}) is None

    def _read(self, which: Document, order: Mapping[str, int]) -> list[Document]:
        age = {"$divide": [{"$subtract": ["$$NOW", "$heartbeat_at"]}, 1000]}
        pipeline: list[Document] = [
            {"$match": which},
            {"$sort": order},
            {"$limit": _MOST},
            {"$set": {"age_seconds": age}},
        ]
        with mongo_errors():
            return list(self._workers.aggregate(pipeline))

    def forget_older_than(self, seconds: float) -> int:
        """Removes documents of workers long dead; how many."""
        age = {"$subtract": ["$$NOW", "$heartbeat_at"]}
        with mongo_errors():
            result = self._workers.delete_many({"$expr": {"$gt": [age, int(seconds * 1000)]}})
            return result.deleted_count

    def _fresh(self) -> Document:
        age = {"$subtract": ["$$NOW", "$heartbeat_at"]}
        return {"$expr": {"$lt": [age, self._lease_ms]}}
