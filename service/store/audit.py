"""Looks at the database as a whole, for `service.doctor` and the preflight: reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo.database import Database

from service.job import Priority
from service.store.guard import mongo_errors
from service.store.indexes import JOB_INDEXES
from service.store.mongo import Document

_CHUNK = 1_000
_OPTIONS = ("unique", "partialFilterExpression", "expireAfterSeconds")


class Audit:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._database, self._jobs = database, database["jobs"]

    def is_replicated(self) -> bool:
        """Whether the server is a member of a replica set, or a router of a sharded cluster."""
        with mongo_errors():
            hello = self._database.command("hello")
        return "setName" in hello or hello.get("msg") == "isdbgrid"

    def faulty_indexes(self) -> dict[str, str]:
        """Indexes that are missing or not as declared, by name, with which of the two it is."""
        with mongo_errors():
            present = self._jobs.index_information()
        declared = {model.document["name"]: model.document for model in JOB_INDEXES}
        faulty = dict.fromkeys(declared.keys() - present.keys(), "missing")
        for name in declared.keys() & present.keys():
            if _definition(declared[name]) != _definition(present[name]):
                faulty[name] = "not as declared"
        return faulty

    def overdue(self, job_type: str, before: datetime, limit: int) -> list[str]:
        """Jobs of the type that have been due since before then, oldest first; at most `limit` of
        each priority."""
        due = {"status": "pending", "type": job_type, "next_attempt_at": {"$lte": before}}
        ids: list[str] = []
        for priority in Priority:
            with mongo_errors():
                found = self._jobs.find(
                    {**due, "priority": priority.value},
                    {"_id": 1},
                    sort=[("next_attempt_at", 1), ("_id", 1)],
                    limit=limit,
                    hint="lanes",
                )
                ids += [d["_id"] for d in found]
        return ids

    def statuses(self, job_ids: Sequence[str]) -> dict[str, str]:
        """The status of each job that exists."""
        found: dict[str, str] = {}
        for start in range(0, len(job_ids), _CHUNK):
            ids = {"$in": list(job_ids[start : start + _CHUNK])}
            with mongo_errors():
                found |= {
                    d["_id"]: d["status"] for d in self._jobs.find({"_id": ids}, {"status": 1})
                }
        return found

    def held_by(self, workers: Iterable[str], limit: int) -> dict[str, str]:
        """Jobs that are `processing` under these workers, with the worker; at most `limit`."""
        query = {"status": "processing", "worker": {"$in": list(workers)}}
        with mongo_errors():
            return {
                d["_id"]: d["worker"] for d in self._jobs.find(query, {"worker": 1}, limit=limit)
            }

    def counts(self) -> dict[str, int]:
        """How many documents there are by status; counted in an index, so seconds for millions."""
        statuses = ("pending", "processing", "completed", "failed", "cancelled")
        with mongo_errors():
            return {
                status: self._jobs.count_documents({"status": status}, hint="by_status")
                for status in statuses
            }


def _definition(index: Mapping[str, Any]) -> list[Any]:
    """What makes an index what it is; `index_information` and `IndexModel` tell it differently."""
    keys = index["key"]
    pairs = keys.items() if isinstance(keys, Mapping) else keys
    return [[tuple(pair) for pair in pairs], *(index.get(option) for option in _OPTIONS)]
