"""Dead letters: failed jobs whose consequences are still due."""

from __future__ import annotations

from datetime import datetime

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database

from service.store.guard import mongo_errors
from service.store.mongo import Document


class DeadLetters:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._jobs: Collection[Document] = database["jobs"]

    def undelivered(self, before: datetime, limit: int) -> list[Document]:
        """Failed jobs since before then whose dead letter hasn't arrived, oldest first."""
        with mongo_errors():
            return list(
                self._jobs.find(
                    {"dead_letter_due": {"$lte": before}},
                    {"type": 1, "queue": 1, "attempts": 1, "max_attempts": 1},
                    sort=[("dead_letter_due", 1)],
                    limit=limit,
                )
            )

    def take(self, job_id: str, now: datetime) -> Document | None:
        """Notes that the dead letter has arrived; the job, or None where that was known or it
        isn't failed (any more)."""
        with mongo_errors():
            return self._jobs.find_one_and_update(
                {"_id": job_id, "status": "failed", "dead_letter_due": {"$exists": True}},
                {"$set": {"dead_lettered_at": now}, "$unset": {"dead_letter_due": ""}},
                return_document=ReturnDocument.AFTER,
            )
