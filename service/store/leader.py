"""Who leads the sweep: a lease document, by the server's clock."""

from __future__ import annotations

import threading
import time

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from service.clock import from_ms
from service.store.guard import mongo_errors
from service.store.mongo import Document


class LeaderLease:
    """One holder at a time. Two leaders for a moment are harmless: all they do is guarded."""

    def __init__(self, database: Database[Document], holder: str, seconds: float) -> None:
        self._leases = database["leases"]
        self._holder, self._seconds = holder, seconds
        self._held_until = float("-inf")
        self._ticked = False
        self._resigned = False
        self._renewing = threading.Lock()

    def renew(self) -> bool:
        """Takes or keeps the lease where it is free, ours or expired; whether it is ours now. Does
        nothing once resigned.

        Notes in its document whether a tick of the sweep has ended since the last time.
        """
        with self._renewing:
            if self._resigned:
                return False
            asked = time.monotonic()
            with mongo_errors():
                won = self._take() or (self._found() and self._take())
            self._held_until = asked + self._seconds if won else float("-inf")
            return self.is_held

    def _take(self) -> bool:
        free = {"$expr": {"$lt": ["$until", "$$NOW"]}}
        fields = {
            "holder": self._holder,
            "until": {"$add": ["$$NOW", int(self._seconds * 1000)]},
        }
        ticked, self._ticked = self._ticked, False
        if ticked:
            fields["ticked_at"] = "$$NOW"
        result = self._leases.update_one(
            {"_id": "sweep", "$or": [{"holder": self._holder}, free]}, [{"$set": fields}]
        )
        return result.matched_count == 1

    def _found(self) -> bool:
        """Whether the document was missing, and is there now, held by nobody."""
        try:
            self._leases.insert_one({"_id": "sweep", "holder": None, "until": from_ms(0)})
        except DuplicateKeyError:
            return False
        return True

    @property
    def is_held(self) -> bool:
        """By our own monotonic clock, counted from before the renewal: never longer than it is."""
        return time.monotonic() < self._held_until

    def ticked(self) -> None:
        """A tick of the sweep has come to its end: the next renewal notes it."""
        self._ticked = True

    def bury(self, holder: str) -> None:
        """Frees the lease of a holder that is known to be gone."""
        free = {"holder": None, "until": from_ms(0)}
        with mongo_errors():
            self._leases.update_one({"_id": "sweep", "holder": holder}, {"$set": free})

    def resign(self) -> None:
        """Frees the lease at once and for good, so that the next leader needn't wait for its end. A
        renewal that is under way comes first."""
        self._resigned = True
        with self._renewing:
            self._held_until = float("-inf")
        self.bury(self._holder)


class SweepWatch:
    """Whether the sweep is at work, whoever leads it."""

    def __init__(self, database: Database[Document]) -> None:
        self._leases = database["leases"]

    def age_seconds(self) -> float | None:
        """How long ago its last tick ended, by the server's clock; None: there never was one."""
        age = {"$divide": [{"$subtract": ["$$NOW", "$ticked_at"]}, 1000]}
        with mongo_errors():
            found = list(
                self._leases.aggregate(
                    [
                        {"$match": {"_id": "sweep", "ticked_at": {"$exists": True}}},
                        {"$project": {"age": age}},
                    ]
                )
            )
        return max(0.0, found[0]["age"]) if found else None
