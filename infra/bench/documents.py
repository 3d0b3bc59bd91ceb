"""What the jobs' own documents say, read afterwards: asking meanwhile would cost what is measured.

Times are the documents' (`created_at`, `started_at`, `finished_at`), to a millisecond. Only fields
that every contestant writes are used, but for `waits_ms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.collection import Collection

from infra.bench.processes import until

Document = dict[str, Any]
_OPEN = {"status": {"$in": ["pending", "processing"]}}


@dataclass(frozen=True, slots=True)
class Curve:
    """How jobs were completed: `steps` are (seconds since the first was claimed, how many then)."""

    steps: list[tuple[float, int]]

    @property
    def total(self) -> int:
        return sum(count for _, count in self.steps)

    @property
    def seconds(self) -> float:
        """From the first claim to the last completion."""
        return self.steps[-1][0] if self.steps else 0.0

    def rate(self, first: int | None = None) -> float:
        """Completed a second, over the first so many or all."""
        left = self.total if first is None else min(first, self.total)
        wanted = left
        for seconds, count in self.steps:
            left -= count
            if left <= 0:
                return (wanted - left) / seconds if seconds else 0.0
        return 0.0


class Jobs:
    """The collection `jobs`."""

    def __init__(self, collection: Collection[Document]) -> None:
        self.collection = collection

    def wait_done(self, seconds: float) -> bool:
        """Whether no job is open any more, in time."""
        return until(lambda: self.collection.find_one(_OPEN, {"_id": 1}) is None, seconds, 0.1)

    def count_open(self) -> int:
        return self.collection.count_documents(_OPEN)

    def count(self) -> int:
        return self.collection.count_documents({})

    def any_completed(self) -> bool:
        return self.collection.find_one({"status": "completed"}, {"_id": 1}) is not None

    def clear(self) -> None:
        self.collection.delete_many({})

    def within(self, field: str, begin: datetime, end: datetime) -> int:
        """Of how many jobs the time in this field lies in between."""
        return self.collection.count_documents({field: {"$gte": begin, "$lt": end}})

    def completions(self, **which: Any) -> Curve:
        """Of the completed jobs that match."""
        query = {"status": "completed", **which}
        group = {"_id": "$finished_at", "n": {"$sum": 1}, "from": {"$min": "$started_at"}}
        found = list(
            self.collection.aggregate([{"$match": query}, {"$group": group}, {"$sort": {"_id": 1}}])
        )
        begin = min((step["from"] for step in found), default=None)
        return Curve([((step["_id"] - begin).total_seconds(), step["n"]) for step in found])

    def makespan(self, **which: Any) -> float:
        """Seconds from the first creation to the last end of the jobs that match."""
        group = {"_id": None, "from": {"$min": "$created_at"}, "to": {"$max": "$finished_at"}}
        found = list(self.collection.aggregate([{"$match": which}, {"$group": group}]))
        return (found[0]["to"] - found[0]["from"]).total_seconds() if found else 0.0

    def latencies_ms(self, since: datetime) -> list[float]:
        """From created to completed, in order of length, of the jobs created since then."""
        query = {"created_at": {"$gte": since}, "status": "completed"}
        found = self.collection.find(query, {"created_at": 1, "finished_at": 1})
        return sorted((d["finished_at"] - d["created_at"]).total_seconds() * 1e3 for d in found)

    def waits_ms(self, type_: str) -> list[float]:
        """From created to the start of the handler, in order of length, of a type's jobs."""
        query = {"type": type_, "status": "completed"}
        found = self.collection.find(query, {"created_at": 1, "history": 1})
        waits = ((d["history"][0]["started_at"] - d["created_at"]).total_seconds() for d in found)
        return sorted(wait * 1e3 for wait in waits)
