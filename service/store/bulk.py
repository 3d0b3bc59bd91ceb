"""Many jobs at once by filter: changed or counted by id in chunks, each of which is short.

It goes by id, so that a job that comes to match again meanwhile is not met again.

What a call changes bears its mark (`bulk`: the last few calls that changed the job), and is never
changed by it again. How many there are is the server's word for each statement. Where that is lost,
or the server gave up halfway, the call waits until the statement can't be under way any more, sends
it again for those without the mark, and counts the marks: so whatever else becomes of the jobs
meanwhile, each is counted by whoever changed it, once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.collection import Collection

from service.errors import StoreUnavailable
from service.store import commands
from service.store.guard import mongo_errors
from service.store.mongo import Document, deadline
from service.store.pace import Pace

_STEP_SECONDS = 5.0
_GRACE_SECONDS = 8.0
"""How long after its time is up a call may still need for the chunk that is under way."""
_AGAIN_SECONDS = 0.5
"""Between two tries while MongoDB is away."""
_COUNT_STEP = 50_000
_ROUNDS = 3
"""How often a chunk is gone through whose jobs change their status meanwhile."""
_MOST_MARKS = 8
"""How many calls may change a job between a statement of another one and its count."""
_SHOWN = {"type": 1, "queue": 1, "priority": 1, "status": 1}


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of the jobs that match any of the queries: one for each index that is needed,
    no two of which match the same job. `pipeline()`, made anew for each chunk, holds no text of a
    client's; after it a job matches none of them."""

    queries: Sequence[Document]
    pipeline: Callable[[], Sequence[Document]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What became of some of the jobs."""

    matched: int
    """How many were found."""
    counts: tuple[int, ...]
    """How many of them this call changed itself, by change: others may have been faster."""
    jobs: list[Document]
    """Type, queue, priority and present status of those that the first change has met; none where
    MongoDB went away in just that moment."""
    more: bool
    """Whether it ends here though more is left."""

    @property
    def changed(self) -> int:
        return sum(self.counts)


def change_many(
    jobs: Collection[Document], changes: Sequence[Change], until: float
) -> Iterator[Chunk]:
    """Makes each job undergo the first of the changes that it matches.

    Ends after the first chunk that is done at `until` (monotonic), at most eight seconds later.
    Raises `StoreUnavailable` where nothing was changed, or nothing is known of one chunk.
    """
    call, pace, last, is_first = _Call(jobs, changes, until + _GRACE_SECONDS), Pace(), "", True
    while True:
        began = time.monotonic()
        try:
            ids = call.ids_after(last, pace.size + 1)
        except StoreUnavailable:
            if is_first:
                raise
            yield Chunk(0, (0,) * len(changes), [], more=True)
            return
        if not ids:
            return
        is_last, ids = len(ids) <= pace.size, ids[: pace.size]
        last, is_first = ids[-1], False
        counts, mine = call.change(ids)
        pause = pace.after(len(ids), time.monotonic() - began)
        is_over = is_last or time.monotonic() >= until
        yield Chunk(len(ids), counts, mine, more=is_over and not is_last)
        if is_over:
            return
        time.sleep(max(0.0, min(pause, until - time.monotonic())))


class _Call:
    """One call's changes, and its marks. `end`: when (monotonic) it has to have an answer."""

    def __init__(self, jobs: Collection[Document], changes: Sequence[Change], end: float) -> None:
        self._jobs, self._changes, self._end = jobs, changes, end
        token = os.urandom(9).hex()
        self._marks = [f"{token}-{number}" for number in range(len(changes))]

    def ids_after(self, last: str, most: int) -> list[str]:
        """The first ones that match, of those beyond `last`. Raises `StoreUnavailable`."""
        ids: set[str] = set()
        for query in (query for change in self._changes for query in change.queries):
            with mongo_errors(), deadline(self._seconds()):
                after = _after(query, last)
                found = self._jobs.find(after, {"_id": 1}, sort=[("_id", 1)], limit=most)
                ids.update(d["_id"] for d in found)
        return sorted(ids)[:most]

    def change(self, ids: Sequence[str]) -> tuple[tuple[int, ...], list[Document]]:
        """How many it changed, by change, and those of the first one. Raises `StoreUnavailable`
        where that can't be known."""
        numbers, unsure = range(len(self._changes)), set[int]()
        totals = [0 for _ in numbers]
        for _ in range(_ROUNDS):
            for number in numbers:
                if not unsure and sum(totals) == len(ids):
                    break
                count = self._apply(ids, number)
                if count is None:
                    unsure.add(number)
                totals[number] += count or 0
            if len(numbers) == 1 or (not unsure and sum(totals) == len(ids)):
                break
        counts = (self._marked(ids, n) if n in unsure else totals[n] for n in numbers)
        return tuple(counts), self._met(ids)

    def _apply(self, ids: Sequence[str], number: int) -> int | None:
        """How many it changed; None: it is done, but only the marks tell. Raises
        `StoreUnavailable`."""
        is_sure = True
        while self._changes[number].queries:
            seconds = self._seconds()
            over_at = time.monotonic() + seconds
            try:
                with mongo_errors(), deadline(seconds):
                    count = self._update(ids, number)
                return count if is_sure else None
            except StoreUnavailable:
                # The server may still be at it, until the time that it was given is over.
                is_sure = False
                over_at = max(over_at, time.monotonic() + _AGAIN_SECONDS)
                if over_at >= self._end:
                    raise
                time.sleep(max(0.0, over_at - time.monotonic()))
        return 0

    def _update(self, ids: Sequence[str], number: int) -> int:
        mark, change = self._marks[number], self._changes[number]
        query = {"_id": {"$in": ids}, "$or": change.queries, "bulk": {"$nin": self._marks}}
        marks = {"$concatArrays": [[mark], {"$ifNull": ["$bulk", []]}]}
        marking = {"$set": {"bulk": {"$slice": [marks, _MOST_MARKS]}}}
        statement = {"q": query, "u": [*change.pipeline(), marking], "multi": True}
        return commands.update(self._jobs.database, self._jobs.name, [statement])

    def _marked(self, ids: Sequence[str], number: int) -> int:
        query = {"_id": {"$in": ids}, "bulk": self._marks[number]}
        with mongo_errors(), deadline(self._seconds()):
            return self._jobs.count_documents(query, hint="_id_")

    def _met(self, ids: Sequence[str]) -> list[Document]:
        """Of those that the first change has met. What follows from it is found otherwise where
        this fails: no count depends on it."""
        query = {"_id": {"$in": ids}, "bulk": self._marks[0]}
        try:
            with mongo_errors(), deadline(self._seconds()):
                return list(self._jobs.find(query, _SHOWN, batch_size=len(ids), hint="_id_"))
        except StoreUnavailable:
            return []

    def _seconds(self) -> float:
        """How long the next step may take."""
        return max(0.1, min(_STEP_SECONDS, self._end - time.monotonic()))


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
