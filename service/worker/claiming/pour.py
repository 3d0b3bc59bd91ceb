"""Fills a lane's window in Redis from MongoDB, where the lane has more than that holds."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from service.clock import from_ms, to_ms
from service.job import Hint
from service.queue.lanes import Lane, Lanes
from service.store import JobStore
from service.store.waiting import Due
from service.worker.claiming.shares import SHARES

_POURED_BEFORE = 500
"""So many of those that are due since the same moment may have been poured the last time."""


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
    began: float = field(default_factory=time.monotonic)
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
        the overflow still set, and has none; so there is one more look, up to this moment."""
        self.lanes.clear_overflow(self.lane)
        self.now += timedelta(seconds=time.monotonic() - self.began)
        self._send(besides=frozenset(self.seen))
        if self.since_ms is not None:
            self.lanes.set_overflow(self.lane)

    def _send(self, besides: Collection[str] = frozenset()) -> None:
        """Sends hints for what is due from `since_ms` on, and sets that anew.

        What has a hint is read first: what is taken meanwhile is then not sent once more.
        """
        window, listed = self.lanes.window_of_one(), self.lanes.listed(self.lane)
        room, limit = max(0, window - len(listed)), window
        if self.since_ms is not None and not besides:
            limit = min(window, room + _POURED_BEFORE)
        found, unlisted = self._look(limit, listed.union(besides))
        if limit < window and any(
            len(found[p].hints) >= limit and not unlisted[p].hints for p in SHARES
        ):
            limit = window
            found, unlisted = self._look(limit, listed)
        chosen = _shared_out(unlisted, room)
        added = self.lanes.push(chosen, past_overflow=True)
        sent = {hint.job_id for hint in chosen[:added]}
        rests = [_rest(found[p], unlisted[p], sent, limit) for p in SHARES]
        self.since_ms = min((to_ms(rest) for rest in rests if rest is not None), default=None)
        self.seen.update(hint.job_id for due in found.values() for hint in due.hints)
        self.poured += added

    def _look(self, limit: int, besides: Collection[str]) -> tuple[dict[str, Due], dict[str, Due]]:
        """What is due of each priority, up to so much; what of it isn't to be passed over."""
        found = {p: self._due(p, limit) for p in SHARES}
        return found, {p: _without(due, besides) for p, due in found.items()}

    def _due(self, priority: str, limit: int) -> Due:
        since = None if self.since_ms is None else from_ms(self.since_ms)
        due = self.store.waiting.due([self.lane.type], priority, self.now, limit=limit, since=since)
        hints = [h if h.queue == self.lane.queue else self._moved(h) for h in due.hints]
        return Due(hints, due.times)

    def _moved(self, hint: Hint) -> Hint:
        return replace(hint, queue=self.lane.queue)


def _without(due: Due, listed: Collection[str]) -> Due:
    pairs = [
        (hint, due_at)
        for hint, due_at in zip(due.hints, due.times, strict=True)
        if hint.job_id not in listed
    ]
    return Due([hint for hint, _ in pairs], [time for _, time in pairs])


def _shared_out(unlisted: dict[str, Due], room: int) -> list[Hint]:
    """The oldest of each priority, as many as its share of the room; then more, high ones first."""
    first = {p: due.hints[: int(room * SHARES[p])] for p, due in unlisted.items()}
    rest = [hint for p, due in unlisted.items() for hint in due.hints[len(first[p]) :]]
    chosen = [hint for hints in first.values() for hint in hints]
    return chosen + rest[: room - len(chosen)]


def _rest(found: Due, unlisted: Due, sent: Collection[str], limit: int) -> datetime | None:
    """Since when the first of a priority that was not sent has been due; None: there is none."""
    for hint, due_at in zip(unlisted.hints, unlisted.times, strict=True):
        if hint.job_id not in sent:
            return due_at
    return found.times[-1] if len(found.hints) >= limit else None
