"""Jobs that are `processing`: which worker holds them, and what it should know of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database

from service.job import Job, Outcome, Stranded
from service.store.documents import WITHOUT_PAYLOAD, job_of
from service.store.guard import mongo_errors
from service.store.mongo import Document
from service.store.rescues import Rescues

_STRANDED_FIELDS: Document = WITHOUT_PAYLOAD | {
    # Crashes since the budget was last granted: a history may be long, and full of long texts.
    "crashes": {
        "$size": {
            "$filter": {
                "input": "$history",
                "cond": {
                    "$and": [
                        {"$eq": ["$$this.outcome", Outcome.CRASH.value]},
                        {"$gt": ["$$this.attempt", {"$ifNull": ["$retried_from", 0]}]},
                    ]
                },
            }
        }
    }
}


class HeldJobs:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._jobs: Collection[Document] = database["jobs"]
        self.rescues = Rescues(database)

    def stranded(self, worker: str, *, after: str = "", most: int = 500) -> list[Stranded]:
        """What is still `processing` under a worker that is dead, without payloads: the first ones
        in the order of their ids, of those beyond `after`."""
        query = {"status": "processing", "worker": worker, "_id": {"$gt": after}}
        with mongo_errors():
            found = list(
                self._jobs.find(
                    query, _STRANDED_FIELDS, sort=[("_id", 1)], limit=most, hint="by_status"
                )
            )
        held = self.rescues.held(worker) if found else 0
        return [Stranded(job_of(d), d["crashes"], held) for d in found]

    def claims_of(self, worker: str) -> dict[str, str]:
        """The fencing token of every job that is `processing` under this worker."""
        query = {"status": "processing", "worker": worker}
        with mongo_errors():
            return {d["_id"]: d["claim"] for d in self._jobs.find(query, {"claim": 1})}

    def held_by(self, worker: str, job_ids: Sequence[str]) -> list[Job]:
        """Those of the jobs that are `processing` under this worker, without their payloads."""
        if not job_ids:
            return []
        query = {"_id": {"$in": list(job_ids)}, "status": "processing", "worker": worker}
        with mongo_errors():
            return [job_of(d) for d in self._jobs.find(query, WITHOUT_PAYLOAD)]

    def holders(self) -> set[str]:
        """The workers that hold jobs, dead ones included."""
        pipeline = [{"$match": {"status": "processing"}}, {"$group": {"_id": "$worker"}}]
        with mongo_errors():
            return {d["_id"] for d in self._jobs.aggregate(pipeline)}

    def cancel_requests(self, worker: str, job_ids: Sequence[str]) -> list[str]:
        """Those of the jobs that are under this worker and that a client wants cancelled."""
        query = {
            "_id": {"$in": list(job_ids)},
            "status": "processing",
            "worker": worker,
            "cancel_requested": True,
        }
        with mongo_errors():
            return [d["_id"] for d in self._jobs.find(query, {"_id": 1}, hint="_id_")]

    def progress(self, job: Job, value: Any) -> None:
        """Sets the job's `progress`, while it is run under this claim."""
        guard = {"_id": job.id, "status": "processing", "claim": job.claim}
        with mongo_errors():
            self._jobs.update_one(guard, {"$set": {"progress": value}})
