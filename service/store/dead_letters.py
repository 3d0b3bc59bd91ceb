"""Dead letters: failed jobs whose consequences are still due."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from pymongo.collection import Collection
from pymongo.cursor import Cursor
from pymongo.database import Database

from service.errors import StoreUnavailable
from service.store import commands
from service.store.guard import mongo_errors
from service.store.mongo import Document

_SHOWN = {"payload": 0, "history": 0}


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

    def take(self, job_ids: Sequence[str], now: datetime) -> list[Document]:
        """Notes that the dead letters of these jobs have arrived; the jobs, without payloads, in
        their order. Left out are those of which that was known, and those that aren't failed (any
        more).

        Each is taken by one caller only, who knows them by a token in the place of a claim's.
        """
        due = {"status": "failed", "dead_letter_due": {"$exists": True}}
        with mongo_errors():
            found = {d["_id"]: d for d in self._find({"_id": {"$in": list(job_ids)}, **due})}
        if not found:
            return []
        taken = self._mark({"_id": {"$in": list(found)}, **due}, len(found), now)
        ids = [job_id for job_id in dict.fromkeys(job_ids) if job_id in found]
        return [found[job_id] for job_id in ids if taken is None or job_id in taken]

    def _mark(self, due: Document, count: int, now: datetime) -> set[str] | None:
        """The ids of those of the jobs that this call took; None: all of them, so many.

        Where the reply is lost, a second try finds what the first one took.
        """
        token = os.urandom(12).hex()
        change = {
            "$set": {"dead_lettered_at": now, "claim": token},
            "$unset": {"dead_letter_due": ""},
        }
        statement = {"q": due, "u": change, "multi": True}
        try:
            matched = self._update(statement)
        except StoreUnavailable:
            matched = self._update(statement)
        if matched == count:
            return None
        with mongo_errors():
            return {d["_id"] for d in self._find({"_id": due["_id"], "claim": token})}

    def _update(self, statement: Document) -> int:
        with mongo_errors():
            return commands.update(self._jobs.database, self._jobs.name, [statement])

    def _find(self, query: Document) -> Cursor[Document]:
        return self._jobs.find(query, _SHOWN, hint="_id_")
