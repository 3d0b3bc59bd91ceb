"""What `service.doctor` looks for: where MongoDB and Redis disagree, and nobody puts it right.

A system at work is always a little out of step, and its sweep mends that within seconds. So what a
first look finds is looked for again after a pause, and only what is still there counts. All reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cached_property

import redis

from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.queue.broker import DEAD_LETTER_QUEUE, PulseBroker
from service.queue.messages import job_id_of
from service.runtime import preflight
from service.store import Stores

OVERDUE = timedelta(seconds=5)
"""How long a due job may be without a message: the sweep sends one after a second or two."""
DEAD_LETTER_OVERDUE = timedelta(seconds=30)
SCHEDULE_OVERDUE = timedelta(seconds=15)
"""How late a tick may be: whoever leads next makes it within seconds."""
_MOST = 20_000
_SCAN = 1_000
_COUNTING_SECONDS = 0.5
_OPEN = frozenset({"pending", "processing"})

Found = Mapping[str, str]
"""What a look found: a key that stays the same while the fault lasts, and a text to show."""


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Harmless, and mends itself."""
    WARNING = "warning"
    """Nothing is wrong now; something will be, one day."""
    PROBLEM = "problem"
    """Should have been mended by now, or can't be looked at."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look for; `meaning` says what it is if there is any."""

    name: str
    look: Callable[[], Found]
    meaning: str
    level: Level = Level.PROBLEM
    needs: tuple[str, ...] = ()
    """Names of checks without whose success this one would only wait for a server."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a check; `examples` are the first of `count`."""

    check: str
    level: Level
    meaning: str = ""
    count: int = 0
    examples: tuple[str, ...] = ()


def examine(
    checks: Sequence[Check], pause_seconds: float, *, most_examples: int = 5
) -> list[Finding]:
    """Looks once, and again after the pause for what was found; a finding a check, in order."""
    looked: dict[str, Found | str] = {}
    for check in checks:
        missing = [name for name in check.needs if isinstance(looked.get(name), str)]
        looked[check.name] = (
            f"can't be looked for: see {missing[0]!r}" if missing else _looked(check)
        )
    if any(found and not isinstance(found, str) for found in looked.values()):
        time.sleep(pause_seconds)
    return [_finding(check, _still(looked[check.name], check), most_examples) for check in checks]


def _looked(check: Check) -> Found | str:
    """What was found, or why it couldn't be looked for."""
    try:
        return check.look()
    except (StoreUnavailable, redis.RedisError) as error:
        return f"can't be looked for: {str(error).partition(' (configured')[0]}"


def _still(found: Found | str, check: Check) -> Found | str:
    if not found or isinstance(found, str):
        return found
    again = _looked(check)
    if isinstance(again, str):
        return again
    return {key: text for key, text in again.items() if key in found}


def _finding(check: Check, found: Found | str, most: int) -> Finding:
    if isinstance(found, str):
        return Finding(check.name, Level.PROBLEM, found)
    if not found:
        return Finding(check.name, Level.OK)
    examples = tuple(list(found.values())[:most])
    return Finding(check.name, check.level, check.meaning, len(found), examples)


class Checkup:
    """The checks on one database and one Redis; `clock` is read anew by the first check."""

    def __init__(self, stores: Stores, broker: PulseBroker, clock: ServerClock) -> None:
        self._stores, self._broker, self._clock = stores, broker, clock

    def checks(self) -> list[Check]:
        """In the order in which one would ask."""
        mongodb, redis_ = "MongoDB answers", "Redis answers"
        note, both = Level.NOTE, (mongodb, redis_)
        return [
            Check(mongodb, self.mongodb_down, "no server takes writes"),
            Check(redis_, self.redis_down, "workers claim straight from MongoDB"),
            Check("settings of the servers", self.warnings, "", Level.WARNING, both),
            Check("indexes", self.faulty_indexes, "a starting process makes them", needs=both[:1]),
            Check("queues without a worker", self.unserved, "due jobs wait", needs=both[:1]),
            Check("lost messages", self.lost, "due jobs have none, nor an overflow", needs=both),
            Check("jobs of dead workers", self.stranded, "nobody is at them", needs=both[:1]),
            Check("undelivered dead letters", self.undelivered, "nobody was told", needs=both[:1]),
            Check("late schedules", self.late_schedules, "nobody makes events", needs=both[:1]),
            Check("overflow set for nothing", self.idle_overflow, "new jobs wait", needs=both),
            Check("stale messages", self.stale, "their jobs are final or gone", note, both),
            Check("counters", self.miscounted, "a killed process took counts", note, both[:1]),
        ]

    # the servers

    def mongodb_down(self) -> Found:
        self._stores.check_writable(2.0)
        self._stores.read_clock(self._clock)
        return {}

    def redis_down(self) -> Found:
        self._broker.client.ping()
        return {}

    def warnings(self) -> Found:
        found = preflight.warnings(self._stores.audit, self._broker.client, self._clock)
        return {warning[:20]: warning for warning in found}

    def faulty_indexes(self) -> Found:
        return {n: f"{n}: {fault}" for n, fault in self._stores.audit.faulty_indexes().items()}

    # jobs and messages

    @cached_property
    def _served(self) -> set[str]:
        """The queues that a living worker takes jobs of."""
        return {queue for worker in self._stores.workers.alive() for queue in worker["queues"]}

    def unserved(self) -> Found:
        return {
            queue: f"{queue}: waits since {job_since:%Y-%m-%d %H:%M:%S} UTC"
            for queue in self._stores.audit.pending_queues()
            if queue not in self._served
            if (job_since := self._stores.listing.oldest_due(queue, self._clock.now() - OVERDUE))
        }

    def lost(self) -> Found:
        found: dict[str, str] = {}
        for queue in self._stores.audit.pending_queues():
            due = self._stores.audit.overdue(queue, self._clock.now() - OVERDUE, _MOST)
            if due and not self._broker.has_overflow(queue):
                known = {job_id for _, job_id in self._messages(queue)}
                found |= {job_id: job_id for job_id in due if job_id not in known}
        return found

    def _messages(self, queue: str) -> list[tuple[str, str]]:
        """Every message of the queue in Redis, fetched ones included: its key and its job's id."""
        rows = self._broker.client.hscan_iter(self._broker.messages_key(queue), count=_SCAN)
        return [(repr(key), job_id_of(key)) for key, _ in rows]

    def stranded(self) -> Found:
        dead = self._stores.workers.dead_among(self._stores.jobs.held.holders())
        held = self._stores.audit.held_by(dead, _MOST) if dead else {}
        return {job_id: f"{job_id} under {worker}" for job_id, worker in held.items()}

    def undelivered(self) -> Found:
        before = self._clock.now() - DEAD_LETTER_OVERDUE
        waiting = self._stores.jobs.dead_letters.undelivered(before, _MOST)
        return {job["_id"]: job["_id"] for job in waiting}

    def late_schedules(self) -> Found:
        late = self._stores.schedules.late(self._clock.now() - SCHEDULE_OVERDUE, _MOST)
        return {name: f"{name}: due since {at:%Y-%m-%d %H:%M:%S} UTC" for name, at in late}

    def idle_overflow(self) -> Found:
        now = self._clock.now()
        return {
            queue: queue
            for queue in self._queues_in_redis("overflow")
            if self._stores.listing.oldest_due(queue, now) is None
        }

    def stale(self) -> Found:
        found: dict[str, str] = {}
        for queue in self._queues_in_redis("msgs"):
            messages = self._messages(queue) if queue != DEAD_LETTER_QUEUE else []
            status = self._stores.audit.statuses([job_id for _, job_id in messages])
            found |= {
                key: f"{queue}: {job_id} ({status.get(job_id, 'no such job')})"
                for key, job_id in messages
                if status.get(job_id) not in _OPEN
            }
        return found

    def _queues_in_redis(self, suffix: str) -> list[str]:
        """The queues that have such a key, known to a worker or not."""
        prefix, suffix = f"{self._broker.namespace}:", f".{suffix}"
        keys = self._broker.client.scan_iter(match=f"{prefix}*{suffix}", count=_SCAN)
        return sorted({bytes(k).decode().removeprefix(prefix).removesuffix(suffix) for k in keys})

    # counts

    def miscounted(self) -> Found:
        """Counters only grow and documents expire, so only more documents than counts tell.

        Documents are counted first and counters read after: the latter are a moment behind.
        """
        there = self._stores.audit.counts()
        there["received"] = sum(there.values())
        found = self._uncounted(there)
        if found:
            time.sleep(_COUNTING_SECONDS)
            found = self._uncounted(there)
        return found

    def _uncounted(self, there: Mapping[str, int]) -> dict[str, str]:
        types = {n: d for n, d in self._stores.counters.read().items() if not n.startswith("_")}
        found = {}
        for name in ("received", "completed", "failed", "cancelled"):
            counted = sum(_total(document.get(name, 0)) for document in types.values())
            if there[name] > counted:
                found[name] = f"{name}: {there[name]} documents, {counted} counted"
        return found


def _total(value: float | Mapping[str, float]) -> int:
    """A count, or the sum of counts by reason."""
    return int(sum(value.values()) if isinstance(value, Mapping) else value)
