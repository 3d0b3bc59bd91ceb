"""Retries and cancellations by filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from pymongo.database import Database

from service.store.bulk import Change, Chunk, change_many, count_many
from service.store.documents import Retention
from service.store.filters import Filter
from service.store.mongo import Document
from service.store.requests import ASKED, cancelling, retrying
from service.store.ticks import ACCEPTED

_RETRYABLE = ("failed", "cancelled")


class BulkChanges:
    """Every method raises `StoreUnavailable`; `until` (monotonic) is when it ends, or soon after,
    though more may be left; `now()` is asked anew for each chunk."""

    def __init__(self, database: Database[Document], retention: Retention | None = None) -> None:
        self._jobs = database["jobs"]
        self._retention = retention or Retention()

    def retry(self, which: Filter, now: Callable[[], datetime], until: float) -> Iterator[Chunk]:
        """Gives the failed and cancelled ones a fresh budget, in chunks; the first one is tried in
        any case."""
        change = Change(_queries(which, *_RETRYABLE), lambda: retrying(now()))
        return change_many(self._jobs, [change], until)

    def count_retryable(self, which: Filter, until: float) -> tuple[int, bool]:
        """How many a retry would match, and whether more is left."""
        return count_many(self._jobs, _queries(which, *_RETRYABLE), until)

    def cancel(self, which: Filter, now: Callable[[], datetime], until: float) -> Iterator[Chunk]:
        """Cancels the pending ones (the first count of a chunk) and asks the processing ones to
        stop (the second), unless they were asked before."""
        pending = [query | ACCEPTED for query in _queries(which, "pending")]
        cancelled = Change(pending, lambda: [{"$set": cancelling(now(), self._retention)}])
        asked = Change(_unasked(which), lambda: [{"$set": {**ASKED, "updated_at": now()}}])
        return change_many(self._jobs, [cancelled, asked], until)

    def count_cancellable(self, which: Filter, until: float) -> tuple[int, bool]:
        """How many a cancellation would match, and whether more is left."""
        queries = [*_queries(which, "pending"), *_unasked(which)]
        return count_many(self._jobs, queries, until)


def _queries(which: Filter, *statuses: str) -> list[Document]:
    """A query a status: its index may be partial, and isn't found for two at once."""
    query = which.query()
    return [{**query, "status": s} for s in statuses if query.get("status", s) == s]


def _unasked(which: Filter) -> list[Document]:
    return [{**query, **_NOT_ASKED} for query in _queries(which, "processing")]


_NOT_ASKED: Document = {name: {"$ne": value} for name, value in ASKED.items()}
