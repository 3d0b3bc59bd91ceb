"""What processes of a former version, which know no lanes, left in Dramatiq's own lists."""

from __future__ import annotations

from collections import defaultdict

from service.catalog import Catalog
from service.queue.broker import PulseBroker
from service.queue.former import job_id_of
from service.store import Counters, JobStore
from service.worker.claiming.inbox import count_junk, hint_of_message

_MOST = 500


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


def clear_orphans(store: JobStore, broker: PulseBroker, queue: str) -> int:
    """Removes messages that are in nobody's hands and whose job has ended; how many.

    A worker that died with a job that it woke up for left one. Raises `StoreUnavailable` and
    `redis.RedisError`.
    """
    orphans = {job_id_of(message_id): message_id for message_id in broker.former.orphans(queue)}
    ended = store.requests.finals(list(orphans)) if orphans else []
    if ended:
        broker.former.forget(queue, [orphans[job_id] for job_id in ended])
    return len(ended)


def _put_aside(
    broker: PulseBroker, junk: list[tuple[str, bytes | None]], counters: Counters
) -> None:
    by_queue: dict[str, list[bytes]] = defaultdict(list)
    for queue, data in junk:
        if data is not None:
            by_queue[queue].append(data)
    for queue, messages in by_queue.items():
        broker.former.put_aside(queue, messages)
    count_junk(counters, len(junk))
