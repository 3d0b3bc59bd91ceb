"""Hints for jobs that are due and have none: what is only now due, and what got lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from service.job import Hint, Priority
from service.queue.lanes import Lane, Lanes
from service.store import JobStore

DISPATCH_AFTER = timedelta(seconds=1)
"""How long a due job's hint may be under way before it counts as lost."""
_CLAIM_SECONDS = 0.1
"""How long a claim may take for which a hint was taken just now."""
_PAGE = 100
_BEYOND = 10


def dispatch(
    store: JobStore,
    lanes: Lanes,
    queues: Mapping[str, str],
    now: datetime,
    *,
    since: datetime | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Sends hints for jobs that are due (since then) and have none; how many. `queues`: of each
    type that is known here, the queue.

    Where nothing is due, that is one small question. Lanes with an overflow are left to those who
    pour them. A hint that somebody has taken, and whose job he is claiming at this moment, isn't
    sent again: what has none is looked at once more after a pause. Raises `StoreUnavailable`,
    `redis.RedisError`.
    """
    before, sent = now - DISPATCH_AFTER, 0
    for due in _pages_of_lanes(store, queues, before, since):
        overflowing = lanes.with_overflow(due)
        lanes.make_known(due)
        lost = [
            hint
            for lane in due
            if lane not in overflowing
            for hint in _unlisted(store, lanes, lane, before, since)
        ]
        if lost:
            pause(_CLAIM_SECONDS)
            still = store.waiting.still_pending([hint.job_id for hint in lost])
            sent += lanes.push([hint for hint in lost if hint.job_id in still])
    return sent


def _pages_of_lanes(
    store: JobStore, queues: Mapping[str, str], before: datetime, since: datetime | None
) -> Iterator[list[Lane]]:
    """The lanes that have due jobs, some together."""
    types, after = list(queues), ""
    while page := store.waiting.types_due(types, before, since=since, after=after, most=_PAGE):
        yield [Lane(queues[name], name) for name in page]
        after = page[-1]
        if len(page) < _PAGE:
            return


def _unlisted(
    store: JobStore, lanes: Lanes, lane: Lane, before: datetime, since: datetime | None
) -> list[Hint]:
    """Due jobs of the lane without a hint: more than find room, so that an overflow is noticed.

    What has one is read first: what is taken meanwhile is then not taken for lost.
    """
    limit, listed = lanes.window_of_one() + _BEYOND, lanes.listed(lane)
    return [
        replace(hint, queue=lane.queue)
        for priority in Priority
        for hint in store.waiting.due([lane.type], priority, before, limit=limit, since=since).hints
        if hint.job_id not in listed
    ]
