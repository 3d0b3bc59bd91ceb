"""Totals since ever, over all hosts and restarts: one document an event type, raised by `$inc`.

They are written right behind the jobs' own writes, without waiting for an answer: a process that is
killed loses the counts of what it had committed just before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from pymongo import UpdateOne, WriteConcern
from pymongo.database import Database

from service.store.guard import mongo_errors
from service.store.mongo import Document


class Deltas:
    """What a batch adds: by document (an event type's name), by dotted field."""

    def __init__(self) -> None:
        self.by_document: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, document: str, name: str, amount: float = 1) -> None:
        self.by_document[document][name] += amount

    def merge(self, other: Deltas) -> None:
        for document, fields in other.by_document.items():
            for name, amount in fields.items():
                self.add(document, name, amount)

    def __bool__(self) -> bool:
        return bool(self.by_document)


class Counters:
    """The collection `counters`."""

    def __init__(self, database: Database[Document]) -> None:
        self._counters = database["counters"]
        self._unanswered = self._counters.with_options(write_concern=WriteConcern(w=0))

    def add(self, deltas: Deltas) -> None:
        """Adds a batch's counts. Raises `StoreUnavailable` only where no server can be reached."""
        updates = [
            UpdateOne({"_id": name}, {"$inc": dict(fields)}, upsert=True)
            for name, fields in deltas.by_document.items()
        ]
        if updates:
            with mongo_errors():
                self._unanswered.bulk_write(updates, ordered=False)

    def read(self) -> Mapping[str, Document]:
        """All counts by document."""
        with mongo_errors():
            return {d.pop("_id"): d for d in self._counters.find()}
