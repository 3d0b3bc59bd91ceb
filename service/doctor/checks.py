"""What `service.doctor` looks for: where MongoDB and Redis disagree, and nobody puts it right.

A function a check; `CHECKS` has them in the order in which one would ask. All of them only read.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta

from service.doctor.examination import Check, Found, Level, Servers
from service.queue.broker import DEAD_LETTER_QUEUE
from service.queue.former import job_id_of
from service.queue.lanes import Lane
from service.runtime import preflight

OVERDUE = timedelta(seconds=5)
"""How long a due job may be without a message: the sweep sends one after a second or two."""
DEAD_LETTER_OVERDUE = timedelta(seconds=30)
_MOST = 20_000
_COUNTING_SECONDS = 0.5
_OPEN = frozenset({"pending", "processing"})


# the servers


def mongodb_down(servers: Servers) -> Found:
    servers.stores.check_writable(2.0)
    servers.stores.read_clock(servers.clock)
    return {}


def redis_down(servers: Servers) -> Found:
    servers.broker.client.ping()
    return {}


def warnings(servers: Servers) -> Found:
    found = preflight.warnings(servers.stores.audit, servers.broker.client, servers.clock)
    return {warning[:20]: warning for warning in found}


def faulty_indexes(servers: Servers) -> Found:
    return {n: f"{n}: {fault}" for n, fault in servers.stores.audit.faulty_indexes().items()}


# jobs and messages


def _served(servers: Servers) -> set[str]:
    """The queues that a living worker takes jobs of."""
    return {queue for worker in servers.stores.workers.alive() for queue in worker["queues"]}


def unserved(servers: Servers) -> Found:
    served, before = _served(servers), servers.clock.now() - OVERDUE
    return {
        queue: f"{queue}: waits since {job_since:%Y-%m-%d %H:%M:%S} UTC"
        for queue, types in _pending(servers).items()
        if queue not in served
        if (job_since := servers.stores.listing.oldest_due(types, before))
    }


def _pending(servers: Servers) -> dict[str, list[str]]:
    """The types that have pending jobs, by queue."""
    by_queue: dict[str, list[str]] = {}
    for job_type, queue in servers.stores.listing.pending_types().items():
        by_queue.setdefault(queue, []).append(job_type)
    return by_queue


def lost(servers: Servers) -> Found:
    lanes, found = servers.broker.lanes, dict[str, str]()
    known, before = lanes.known(), servers.clock.now() - OVERDUE
    for job_type, queue in servers.stores.listing.pending_types().items():
        due = servers.stores.audit.overdue(job_type, before, _MOST)
        of_type = {lane for lane in known if lane.type == job_type} | {Lane(queue, job_type)}
        if due and not lanes.with_overflow(list(of_type)):
            listed = {job_id for lane in of_type for job_id in lanes.listed(lane)}
            found |= {job_id: job_id for job_id in due if job_id not in listed}
    return found


def stranded(servers: Servers) -> Found:
    dead = servers.stores.workers.dead_among(servers.stores.jobs.held.holders())
    held = servers.stores.audit.held_by(dead, _MOST) if dead else {}
    return {job_id: f"{job_id} under {worker}" for job_id, worker in held.items()}


def undelivered(servers: Servers) -> Found:
    before = servers.clock.now() - DEAD_LETTER_OVERDUE
    waiting = servers.stores.jobs.dead_letters.undelivered(before, _MOST)
    return {job["_id"]: job["_id"] for job in waiting}


def idle_overflow(servers: Servers) -> Found:
    lanes, now = servers.broker.lanes, servers.clock.now()
    return {
        lane.name: lane.name
        for lane in sorted(lanes.with_overflow(list(lanes.known())))
        if servers.stores.listing.oldest_due([lane.type], now) is None
    }


def stale(servers: Servers) -> Found:
    broker = servers.broker
    hints = [(hint.queue, hint.job_id) for hint in broker.lanes.all_hints()]
    hints += [
        (queue, job_id_of(message_id))
        for queue in broker.lists.queues()
        if queue != DEAD_LETTER_QUEUE
        for message_id in broker.lists.stored_ids(queue)
    ]
    status = servers.stores.audit.statuses([job_id for _, job_id in hints])
    return {
        f"{queue}/{job_id}": f"{queue}: {job_id} ({status.get(job_id, 'no such job')})"
        for queue, job_id in hints
        if status.get(job_id) not in _OPEN
    }


# counts


def miscounted(servers: Servers) -> Found:
    """Counters only grow and documents expire, so only more documents than counts tell.

    Documents are counted first and counters read after: the latter are a moment behind.
    """
    there = servers.stores.audit.counts()
    there["received"] = sum(there.values())
    found = _uncounted(servers, there)
    if found:
        time.sleep(_COUNTING_SECONDS)
        found = _uncounted(servers, there)
    return found


def _uncounted(servers: Servers, there: Mapping[str, int]) -> dict[str, str]:
    types = {n: d for n, d in servers.stores.counters.read().items() if not n.startswith("_")}
    found = {}
    for name in ("received", "completed", "failed", "cancelled"):
        counted = sum(_total(document.get(name, 0)) for document in types.values())
        if there[name] > counted:
            found[name] = f"{name}: {there[name]} documents, {counted} counted"
    return found


def _total(value: float | Mapping[str, float]) -> int:
    """A count, or the sum of counts by reason."""
    return int(sum(value.values()) if isinstance(value, Mapping) else value)


_MONGODB, _REDIS = "MongoDB answers", "Redis answers"
_BOTH = (_MONGODB, _REDIS)
CHECKS = (
    Check(_MONGODB, mongodb_down, "no server takes writes"),
    Check(_REDIS, redis_down, "workers claim straight from MongoDB"),
    Check("settings of the servers", warnings, "", Level.WARNING, _BOTH),
    Check("indexes", faulty_indexes, "a starting process makes them", needs=(_MONGODB,)),
    Check("queues without a worker", unserved, "due jobs wait", needs=(_MONGODB,)),
    Check("lost messages", lost, "due jobs have none, nor an overflow", needs=_BOTH),
    Check("jobs of dead workers", stranded, "nobody is at them", needs=(_MONGODB,)),
    Check("undelivered dead letters", undelivered, "nobody was told", needs=(_MONGODB,)),
    Check("overflow set for nothing", idle_overflow, "new jobs wait", needs=_BOTH),
    Check("stale messages", stale, "their jobs are final or gone", Level.NOTE, _BOTH),
    Check("counters", miscounted, "a killed process took counts", Level.NOTE, (_MONGODB,)),
)
