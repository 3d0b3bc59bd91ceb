"""Many jobs at once by filter: changed or counted by id in steps, each of which is short.

It goes by id, so that a job that comes to match again meanwhile is not met again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.collection import Collection

from service.store import commands
from service.store.guard import mongo_errors
from service.store.mongo import Document, deadline

_CHUNK = 500
_STEP_SECONDS = 5.0
_COUNT_STEP = 50_000
_SHOWN = {"type": 1, "queue": 1, "priority": 1}


@dataclass(frozen=True, slots=True)
class Chunk:
    """What became of some of the jobs."""

    matched: int
    """How many were found."""
    changed: int
    """How many of them this call changed itself: others may have been faster."""
    jobs: list[Document]
    """Type, queue and priority of those that it changed and that nobody has claimed since."""
    more: bool
    """Whether it ends here though more is left."""


def change_many(
    jobs: Collection[Document],
    queries: Sequence[Document],
    change: Sequence[Document],
    until: float,
) -> Iterator[Chunk]:
    """Applies `change`, a pipeline after which a job matches no more, to what matches any of the
    queries: one for each index that is needed.

    Ends after the first chunk that is done at `until` (monotonic), at most five seconds later. What
    is changed bears a token of this call in the place of a claim's, so that of two calls at the
    same moment each knows its own. Raises `StoreUnavailable`: then nothing is known of one chunk.
    """
    last = ""
    while True:
        with mongo_errors(), deadline(_STEP_SECONDS):
            ids = _ids_after(jobs, queries, last)
            if not ids:
                return
            is_last, ids = len(ids) <= _CHUNK, ids[:_CHUNK]
            last = ids[-1]
            changed, mine = _change(jobs, ids, queries, change)
        is_over = is_last or time.monotonic() >= until
        yield Chunk(len(ids), changed, mine, more=is_over and not is_last)
        if is_over:
            return


def _ids_after(jobs: Collection[Document], queries: Sequence[Document], last: str) -> list[str]:
    """The next chunk's, and one more where there is one."""
    ids: set[str] = set()
    for query in queries:
        found = jobs.find(_after(query, last), {"_id": 1}, sort=[("_id", 1)], limit=_CHUNK + 1)
        ids.update(d["_id"] for d in found)
    return sorted(ids)[: _CHUNK + 1]


def _change(
    jobs: Collection[Document],
    ids: Sequence[str],
    queries: Sequence[Document],
    change: Sequence[Document],
) -> tuple[int, list[Document]]:
    these: Document = {"_id": {"$in": ids}}
    token = os.urandom(12).hex()
    pipeline = [*change, {"$set": {"claim": token}}]
    statement = {"q": {**these, "$or": queries}, "u": pipeline, "multi": True}
    changed = commands.update(jobs.database, jobs.name, [statement])
    if not changed:
        return 0, []
    return changed, list(jobs.find({**these, "claim": token}, _SHOWN, batch_size=_CHUNK))


def count_many(
    jobs: Collection[Document], queries: Sequence[Document], until: float
) -> tuple[int, bool]:
    """How many match one of the queries, of which no two match the same job; and whether it ended
    at `until` (monotonic) though more may be left. No single question takes long, however many
    there are. Raises `StoreUnavailable`."""
    total = 0
    for query in queries:
        last = ""
        while True:
            step, last = count_step(jobs, query, last)
            total += step
            if not last:
                break
            if time.monotonic() >= until:
                return total, True
    return total, False


def count_step(
    jobs: Collection[Document], query: Document, last: str, hint: str | None = None
) -> tuple[int, str]:
    """How many match of the next ones after `last`, and the last of those; empty: there are no
    more. Raises `StoreUnavailable`."""
    options: dict[str, Any] = {} if hint is None else {"hint": hint}
    after = _after(query, last)
    with mongo_errors(), deadline(_STEP_SECONDS):
        count = jobs.count_documents(after, limit=_COUNT_STEP, **options)
        if count < _COUNT_STEP:
            return count, ""
        end = jobs.find_one(after, {"_id": 1}, sort=[("_id", 1)], skip=count - 1, **options)
        return count, end["_id"] if end is not None else ""


def _after(query: Document, last: str) -> Document:
    return {"$and": [query, {"_id": {"$gt": last}}]}
