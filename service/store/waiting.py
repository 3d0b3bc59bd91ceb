"""What waits: pending jobs that are due, and suspects among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pymongo.collection import Collection
from pymongo.database import Database

from service.job import Hint, Priority
from service.store.guard import mongo_errors
from service.store.mongo import Document


@dataclass(frozen=True, slots=True)
class Due:
    """Jobs that wait, oldest first, and since when the first of them has been due."""

    hints: list[Hint]
    oldest: datetime | None


class WaitingJobs:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._jobs: Collection[Document] = database["jobs"]

    def due(
        self,
        queue: str,
        priority: str,
        now: datetime,
        *,
        limit: int,
        skip: int = 0,
        types: Sequence[str],
        since: datetime | None = None,
    ) -> Due:
        """The oldest jobs of these types that are pending and due, suspects included: a claim
        tells.

        `since` leaves out what was due before: the keys of jobs that were just claimed are still
        in the index for a while, and passing over thousands of them costs more than the rest.
        """
        query: Document = {
            "status": "pending",
            "queue": queue,
            "priority": priority,
            "next_attempt_at": {"$lte": now} | ({"$gte": since} if since else {}),
            "type": {"$in": list(types)},
        }
        with mongo_errors():
            found = self._jobs.find(
                query,
                {"type": 1, "next_attempt_at": 1},
                sort=[("next_attempt_at", 1), ("_id", 1)],
                limit=limit,
                batch_size=limit,
                skip=skip,
                hint="waiting",
            )
            documents = list(found)
        hints = [Hint(d["_id"], d["type"], queue, priority) for d in documents]
        return Due(hints, documents[0]["next_attempt_at"] if documents else None)

    def any_due(self, queues: Sequence[str], now: datetime, since: datetime | None = None) -> bool:
        """Whether any job of these queues is pending and due (since then); much cheaper than
        `due`."""
        query = {
            "status": "pending",
            "queue": {"$in": list(queues)},
            "priority": {"$in": [p.value for p in Priority]},
            "next_attempt_at": {"$lte": now} | ({"$gte": since} if since else {}),
        }
        with mongo_errors():
            return self._jobs.find_one(query, {"_id": 1}, hint="waiting") is not None

    def suspects(
        self, queues: Iterable[str], types: Iterable[str], now: datetime, limit: int
    ) -> list[tuple[str, int]]:
        """Due jobs of these types that were held by a process that died: id and the company they
        may have."""
        query = {
            "status": "pending",
            "company": {"$exists": True},
            "queue": {"$in": list(queues)},
            "type": {"$in": list(types)},
            "next_attempt_at": {"$lte": now},
        }
        with mongo_errors():
            found = self._jobs.find(
                query, {"company": 1}, sort=[("company", -1)], limit=limit, hint="suspects"
            )
            return [(d["_id"], d["company"]) for d in found]
