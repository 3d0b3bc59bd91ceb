"""What waits: pending jobs that are due, by type, and suspects among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pymongo.collection import Collection
from pymongo.database import Database

from service.job import Hint, Priority
from service.store.guard import mongo_errors
from service.store.mongo import Document

MOST_TYPES = 100
"""The server merges the sorted keys of so many types; of more (200) it would sort all that is due
in memory."""
_PRIORITIES = {"$in": [p.value for p in Priority]}


@dataclass(frozen=True, slots=True)
class Due:
    """Jobs that wait, oldest first, and since when each of them has been due."""

    hints: list[Hint]
    times: list[datetime] = field(default_factory=list)

    @property
    def oldest(self) -> datetime | None:
        return self.times[0] if self.times else None


class WaitingJobs:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._jobs: Collection[Document] = database["jobs"]
        self._turn = itertools.count()

    def due(
        self,
        types: Sequence[str],
        priority: str,
        now: datetime,
        *,
        limit: int,
        skip: int = 0,
        since: datetime | None = None,
    ) -> Due:
        """The oldest jobs of these types that are pending and due, suspects included: a claim
        tells. Of more than a hundred types those of one hundred, another one each time.

        `since` leaves out what was due before: the keys of jobs that were just claimed are still
        in the index for a while, and passing over thousands of them costs more than the rest.
        """
        query = _due_query(now, since) | {"priority": priority}
        groups = [types[i : i + MOST_TYPES] for i in range(0, len(types), MOST_TYPES)]
        start = next(self._turn) % len(groups) if groups else 0
        for group in groups[start:] + groups[:start]:
            found = self._oldest({**query, "type": {"$in": list(group)}}, limit, skip)
            if found:
                hints = [Hint(d["_id"], d["type"], d["queue"], priority) for d in found]
                return Due(hints, [d["next_attempt_at"] for d in found])
        return Due([])

    def _oldest(self, query: Document, limit: int, skip: int) -> list[Document]:
        with mongo_errors():
            found = self._jobs.find(
                query,
                {"type": 1, "queue": 1, "next_attempt_at": 1},
                sort=[("next_attempt_at", 1), ("_id", 1)],
                limit=limit,
                batch_size=limit,
                skip=skip,
                hint="lanes",
            )
            return list(found)

    def any_due(self, types: Sequence[str], now: datetime, since: datetime | None = None) -> bool:
        """Whether any job of these types is pending and due (since then); much cheaper than
        `due`."""
        return next(self._types_due(types, now, since, ""), None) is not None

    def types_due(
        self,
        types: Sequence[str],
        now: datetime,
        *,
        since: datetime | None = None,
        after: str = "",
        most: int = MOST_TYPES,
    ) -> list[str]:
        """Those of the types that have pending jobs that are due (since then), in their order from
        beyond `after` on: a look into the index for each, however many jobs wait, and one where
        there are none."""
        return list(itertools.islice(self._types_due(types, now, since, after), most))

    def _types_due(
        self, types: Sequence[str], now: datetime, since: datetime | None, after: str
    ) -> Iterator[str]:
        """A lane that has nothing pending costs nothing, so all types are looked at, and those
        that weren't asked for are passed over."""
        wanted = frozenset(types)
        while True:
            query = _due_query(now, since) | {"type": {"$gt": after}, "priority": _PRIORITIES}
            with mongo_errors():
                found = self._jobs.find_one(query, {"type": 1}, hint="lanes")
            if found is None:
                return
            after = found["type"]
            if after in wanted:
                yield after

    def still_pending(self, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that wait, be they due or not."""
        query = {"_id": {"$in": list(job_ids)}, "status": "pending"}
        with mongo_errors():
            return {d["_id"] for d in self._jobs.find(query, {"_id": 1}, hint="_id_")}

    def suspects(self, types: Iterable[str], now: datetime, limit: int) -> list[tuple[str, int]]:
        """Due jobs of these types that were held by a process that died: id and the company they
        may have."""
        query = {
            "status": "pending",
            "company": {"$exists": True},
            "type": {"$in": list(types)},
            "next_attempt_at": {"$lte": now},
        }
        with mongo_errors():
            found = self._jobs.find(
                query, {"company": 1}, sort=[("company", -1)], limit=limit, hint="suspects"
            )
            return [(d["_id"], d["company"]) for d in found]


def _due_query(now: datetime, since: datetime | None) -> Document:
    times = {"$lte": now} | ({"$gte": since} if since else {})
    return {"status": "pending", "next_attempt_at": times}
