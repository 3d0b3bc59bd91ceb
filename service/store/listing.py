"""Many jobs at once: newest first by keyset, and how much there is of what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from service.store.bulk import count_step
from service.store.filters import Filter
from service.store.guard import mongo_errors
from service.store.mongo import Document
from service.store.payloads import OneByOne
from service.store.ticks import ACCEPTED
from service.store.waiting import MOST_TYPES

_PENDING: Document = {"status": "pending"}
_MOST_COUNTED = 1_000_000
"""What a gauge counts at most: MongoDB takes a second or two for so many keys."""


class Listing:
    """Reads of many jobs. Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._jobs = database["jobs"]
        self._lasting = self._jobs.with_options(read_concern=ReadConcern("majority"))
        self._one_by_one = OneByOne(self._lasting)

    def page(
        self, which: Filter, limit: int, below: str | None, most_bytes: int
    ) -> tuple[list[Document], bool]:
        """Newest first, at most `limit`, only ids before `below`, and no more once they have
        `most_bytes`; and whether there is more."""
        query = which.query(below=below) | ACCEPTED
        return self._one_by_one.page(query, sort=[("_id", -1)], limit=limit, most_bytes=most_bytes)

    def count_pending(self, most: int) -> int:
        """How many jobs are pending; no further than `most`, in steps none of which is slow."""
        total, last = count_step(self._jobs, _PENDING, "", "by_status")
        while last and total < most:
            step, last = count_step(self._jobs, _PENDING, last, "by_status")
            total += step
        return min(total, most)

    def depth(self, types: Sequence[str], now: datetime) -> int:
        """How many jobs of these types wait and are due; a million at most."""
        return self._count_waiting(types, {"$lte": now})

    def scheduled(self, types: Sequence[str], now: datetime) -> int:
        """How many jobs of these types wait for their time; a million at most."""
        return self._count_waiting(types, {"$gt": now})

    def processing(self) -> int:
        with mongo_errors():
            return self._jobs.count_documents({"status": "processing"})

    def pending_types(self, *, besides: Sequence[str] = ()) -> dict[str, str]:
        """The types, other than these, that have pending jobs, each with the queue of its first
        one; one look into the index each, however many wait."""
        queues: dict[str, str] = {}
        after = ""
        while True:
            others = {"$nin": list(besides), "$gt": after}
            with mongo_errors():
                found = self._jobs.find_one(
                    {**_PENDING, "type": others},
                    {"type": 1, "queue": 1},
                    sort=[("type", 1)],
                    hint="lanes",
                )
            if found is None:
                return queues
            after = found["type"]
            queues[after] = found["queue"]

    def oldest_due(self, types: Sequence[str], now: datetime) -> datetime | None:
        """Since when the longest-waiting due job of these types has been due."""
        groups = [types[i : i + MOST_TYPES] for i in range(0, len(types), MOST_TYPES)]
        times = [self._oldest_of(group, now) for group in groups]
        return min((time for time in times if time is not None), default=None)

    def _oldest_of(self, types: Sequence[str], now: datetime) -> datetime | None:
        times = []
        for priority in ("high", "normal", "low"):
            with mongo_errors():
                found = self._jobs.find_one(
                    {
                        "status": "pending",
                        "type": {"$in": list(types)},
                        "priority": priority,
                        "next_attempt_at": {"$lte": now},
                    },
                    {"next_attempt_at": 1},
                    sort=[("next_attempt_at", 1)],
                    hint="lanes",
                )
            if found is not None:
                times.append(found["next_attempt_at"])
        return min(times, default=None)

    def _count_waiting(self, types: Sequence[str], times: Document) -> int:
        total, some = 0, {**_PENDING, "type": {"$in": list(types)}}
        for priority in ("high", "normal", "low"):
            query = {**some, "priority": priority, "next_attempt_at": times}
            left = _MOST_COUNTED - total
            if left > 0:
                with mongo_errors():
                    total += self._jobs.count_documents(query, hint="lanes", limit=left)
        return total
