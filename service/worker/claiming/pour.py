"""Fills a lane's window in Redis from MongoDB, where the lane has more than that holds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime

from service.clock import from_ms, to_ms
from service.job import Hint, Priority
from service.queue.lanes import Lane, Lanes
from service.store import JobStore
from service.store.waiting import Due

_SHARES = {Priority.HIGH: 0.6, Priority.NORMAL: 0.3, Priority.LOW: 0.1}
"""Of the window, where there is more of each than it holds."""


def pour(store: JobStore, lanes: Lanes, lane: Lane, now: datetime) -> int:
    """Gives the lane hints for its oldest due jobs, as many as find room; how many.

    For who got the lane from `Lanes.take`, and so the lock on it, which is given back in any case.
    Where nothing more is left in MongoDB, the lane's overflow ends. Two pours at once, or a lock
    that ran out meanwhile, cost duplicates. Raises `StoreUnavailable`, `redis.RedisError`.
    """
    return _Pour(store, lanes, lane, now).run()


@dataclass(slots=True)
class _Pour:
    store: JobStore
    lanes: Lanes
    lane: Lane
    now: datetime
    poured: int = 0
    since_ms: int | None = None
    """Since when the jobs that are left have been due; None: none are, or nobody has looked."""
    seen: set[str] = field(default_factory=set)

    def run(self) -> int:
        self.since_ms = self.lanes.since(self.lane)
        try:
            if self.since_ms is not None:
                self._send()
            if self.since_ms is None:
                self._send()
                if self.since_ms is None:
                    self._end_overflow()
        finally:
            self.lanes.pour_done(self.lane, self.since_ms)
        return self.poured

    def _end_overflow(self) -> None:
        """All that is due has a hint by now, or is in somebody's hands. What came in between found
        the overflow still set, and has none; so there is one more look."""
        self.lanes.clear_overflow(self.lane)
        self._send(besides=frozenset(self.seen))
        if self.since_ms is not None:
            self.lanes.set_overflow(self.lane)

    def _send(self, besides: Collection[str] = frozenset()) -> None:
        """Sends hints for what is due from `since_ms` on, and sets that anew.

        What has a hint is read first: what is taken meanwhile is then not sent once more.
        """
        limit, listed = self.lanes.window_of_one(), self.lanes.listed(self.lane)
        found = {p: self._due(p, limit) for p in _SHARES}
        unlisted = {p: _without(due, listed.union(besides)) for p, due in found.items()}
        chosen = _shared_out(unlisted, max(0, limit - len(listed)))
        added = self.lanes.push(chosen, past_overflow=True)
        sent = {hint.job_id for hint in chosen[:added]}
        rests = [_rest(found[p], unlisted[p], sent, limit) for p in _SHARES]
        self.since_ms = min((to_ms(rest) for rest in rests if rest is not None), default=None)
        self.seen.update(hint.job_id for due in found.values() for hint in due.hints)
        self.poured += added

    def _due(self, priority: Priority, limit: int) -> Due:
        since = None if self.since_ms is None else from_ms(self.since_ms)
        due = self.store.waiting.due([self.lane.type], priority, self.now, limit=limit, since=since)
        return Due([replace(hint, queue=self.lane.queue) for hint in due.hints], due.times)


def _without(due: Due, listed: Collection[str]) -> Due:
    pairs = [
        (hint, time)
        for hint, time in zip(due.hints, due.times, strict=True)
        if hint.job_id not in listed
    ]
    return Due([hint for hint, _ in pairs], [time for _, time in pairs])


def _shared_out(unlisted: dict[Priority, Due], room: int) -> list[Hint]:
    """The oldest of each priority, as many as its share of the room; then more, high ones first."""
    first = {p: due.hints[: int(room * _SHARES[p])] for p, due in unlisted.items()}
    rest = [hint for p, due in unlisted.items() for hint in due.hints[len(first[p]) :]]
    chosen = [hint for hints in first.values() for hint in hints]
    return chosen + rest[: room - len(chosen)]


def _rest(found: Due, unlisted: Due, sent: Collection[str], limit: int) -> datetime | None:
    """Since when the first of a priority that was not sent has been due; None: there is none."""
    for hint, time in zip(unlisted.hints, unlisted.times, strict=True):
        if hint.job_id not in sent:
            return time
    return found.times[-1] if len(found.hints) >= limit else None
