"""Hints from web processes of a former version, which know no lanes, come to their lanes."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any

import dramatiq

from service.catalog import Catalog
from service.errors import StoreUnavailable
from service.ids import is_id
from service.job import Hint, Priority
from service.metrics.counts import WORKER_COUNTS
from service.queue.broker import PulseBroker
from service.store import Counters, Deltas

_log = logging.getLogger(__name__)
_MOST = 500
_PRIORITIES = frozenset(p.value for p in Priority)


def adopt(broker: PulseBroker, catalog: Catalog, counters: Counters) -> int:
    """Moves the hints that lie in Dramatiq's lists of queues which are for event types alone; how
    many. What is no hint is put aside and counted.

    Where nothing lies there, that is one small question for all queues. A process that dies in
    here leaves jobs without a hint, which the dispatcher finds. Raises `redis.RedisError`.
    """
    others = {a.queue_name for a in broker.actors.values() if catalog.get(a.actor_name) is None}
    queues, moved = [queue for queue in catalog.queues if queue not in others], 0
    while True:
        found = broker.former.take(queues, _MOST)
        hints = [(queue, data, hint_of_message(data, catalog)) for queue, data in found]
        broker.lanes.push([hint for _, _, hint in hints if hint is not None])
        junk = [(queue, data) for queue, data, hint in hints if hint is None]
        if junk:
            _put_aside(broker, junk, counters)
        moved += len(found) - len(junk)
        if len(found) < _MOST:
            return moved


def hint_of_message(data: bytes | None, catalog: Catalog) -> Hint | None:
    """The hint that a message is, at home in its type's queue; None where it is none. All else that
    it says (time limits, callbacks) is not its business."""
    try:
        message: dramatiq.Message[Any] = dramatiq.Message.decode(data or b"")
        event_type = catalog.get(message.actor_name)
        (job_id,) = message.args
        priority = message.options.get("priority")
        if event_type is None or not is_id(job_id):
            return None
    except (dramatiq.errors.DecodeError, AttributeError, TypeError, ValueError):
        return None
    if not isinstance(priority, str) or priority not in _PRIORITIES:
        priority = Priority.NORMAL
    return Hint(job_id, event_type.name, event_type.queue, priority)


def _put_aside(
    broker: PulseBroker, junk: list[tuple[str, bytes | None]], counters: Counters
) -> None:
    by_queue: dict[str, list[bytes]] = defaultdict(list)
    for queue, data in junk:
        if data is not None:
            by_queue[queue].append(data)
    for queue, messages in by_queue.items():
        broker.put_aside(queue, messages)
    count_junk(counters, len(junk))


def count_junk(counters: Counters, count: int) -> None:
    """Counts messages that were put aside, where that is possible."""
    deltas = Deltas()
    deltas.add(WORKER_COUNTS, "junk", count)
    try:
        counters.add(deltas)
    except StoreUnavailable as error:
        _log.warning("junk is not counted: %s", error)
