"""What this process holds: jobs that it has claimed and whose outcome is not written yet.

How many it may hold follows how fast they run: hundreds of jobs of a millisecond, no more than
there are threads of jobs of a second, so that no job sits behind a busy worker while another idles.
Jobs of asynchronous handlers start at once and are bounded by a setting. And whatever their number,
they and the results that aren't written yet take no more memory than another setting says, beyond
it at most one job: claiming asks for as many jobs as fit by what those before took on average, and
gives back what turns out to be too much.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from dramatiq.broker import MessageProxy

from service.catalog import EventType
from service.job import Job

_HORIZON_SECONDS = 0.02
_MOST_WAITING = 500
_TYPE_SHARE = 0.6
_RATE_MEMORY_SECONDS = 1.0
_SLOW_SECONDS = 0.15
_ALONE_SECONDS = 5.0
_ALONE_MOST_SECONDS = 600.0
_MEAN_MEMORY_JOBS = 256
_RESULT_MEMORY = 2
"""Bytes of memory for each byte of a result's JSON: text takes one, objects several."""


class Stage(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    DROPPED = "dropped"


@dataclass(slots=True, eq=False)
class Held:
    """A claimed job, where its message came from, and how far it is."""

    job: Job
    type: EventType
    message: MessageProxy
    message_key: bytes | None
    """The message's key in Redis; None where the job was claimed straight from MongoDB."""
    popped: bool = False
    """Whether the message was only taken off its list, and Redis doesn't know by whom."""
    stage: Stage = Stage.WAITING
    has_place: bool = True
    """Whether it still takes one of the places for running jobs."""
    settled: bool = False
    """Whether an ending was taken for it: the first one counts, whoever else comes later."""
    cancelled: bool = False
    alone_until: float = 0.0
    """Monotonic time until which nothing else should be claimed; for suspects."""
    since: float = field(default_factory=time.monotonic)
    """Monotonic time of its claim."""
    deadline: float = field(default=float("inf"))
    """Monotonic time of its time limit, once it runs."""
    task: Any = None
    """The asyncio task of an asynchronous handler."""
    size: int = 0
    """Bytes of memory that it takes, about, its result included once there is one."""

    def __post_init__(self) -> None:
        self.cancelled = self.cancelled or self.job.cancel_requested
        self.size = self.job.size or 0


class Registry:
    """Every `Held` of this process, by job id. Thread-safe."""

    def __init__(
        self,
        threads: int,
        async_concurrency: int,
        types: Iterable[EventType],
        max_bytes: int = 134_217_728,
    ) -> None:
        self._held: dict[str, Held] = {}
        self._suspects: set[Held] = set()
        self._running: Counter[str] = Counter()
        self._counts = {True: 0, False: 0}
        self.changed = threading.Condition()
        self._threads, self._async_concurrency = threads, async_concurrency
        self._max_bytes, self._bytes, self._mean_bytes = max_bytes, 0, 0.0
        self._rate = Rate(_RATE_MEMORY_SECONDS)
        self._types = list(types)
        kinds = Counter(t.is_async for t in self._types)
        self._share = _TYPE_SHARE if kinds[True] > 1 else 1.0
        self._thread_limit = max(1, threads - 1) if kinds[False] > 1 else threads

    def __len__(self) -> int:
        return len(self._held)

    # how many more

    def room(self, is_async: bool) -> int:
        """How many more jobs of this kind the process should hold."""
        if is_async:
            places = self._async_concurrency - self._counts[True]
        else:
            ahead = min(_MOST_WAITING, int(self._rate.per_second() * _HORIZON_SECONDS))
            places = self._threads + ahead - self._counts[False]
        room_bytes = self._max_bytes - self._bytes
        if room_bytes > places * self._mean_bytes:
            return places
        return max(1, int(room_bytes / self._mean_bytes)) if room_bytes > 0 else 0

    @property
    def room_bytes(self) -> int:
        """How many more bytes of jobs the process should hold."""
        return self._max_bytes - self._bytes

    def saturated(self) -> list[str]:
        """Types that hold all that one type may, so that a slow one leaves room for the others."""
        return [t.name for t in self._types if self._running[t.name] >= self._limit(t)]

    def clogged(self) -> set[str]:
        """Types that hold (nearly) all that one type may, with jobs that take their time."""
        full = {t.name for t in self._types if self._running[t.name] >= 0.9 * self._limit(t)}
        if not full:
            return full
        before = time.monotonic() - _SLOW_SECONDS
        with self.changed:
            slow = {h.type.name for h in self._held.values() if h.since < before}
        return full & slow

    def type_room(self, event_type: EventType) -> int:
        """How many more jobs of this one type the process should hold."""
        own = self._running[event_type.name]
        return min(self._limit(event_type) - own, self.room(event_type.is_async))

    def _limit(self, event_type: EventType) -> int:
        """One type alone never takes all: of what the others leave it, a share."""
        if event_type.is_async:
            others = self._counts[True] - self._running[event_type.name]
            return max(1, int(self._share * (self._async_concurrency - others)))
        ahead = min(_MOST_WAITING, int(self._rate.per_second() * _HORIZON_SECONDS))
        return self._thread_limit + ahead

    # in and out

    def add(self, held: Iterable[Held]) -> None:
        with self.changed:
            count, before = 0, self._bytes
            for one in held:
                count += 1
                self._bytes += one.size
                self._held[one.job.id] = one
                if one.job.company is not None:
                    one.alone_until = time.monotonic() + _alone_seconds(one.job.deaths)
                    self._suspects.add(one)
                self._running[one.type.name] += 1
                self._counts[one.type.is_async] += 1
            if count:
                self._learn_size(count, (self._bytes - before) / count)

    def _learn_size(self, count: int, mean_bytes: float) -> None:
        """So large were so many jobs: up at once, because too many would have to be given back;
        down with time."""
        share = min(1.0, count / _MEAN_MEMORY_JOBS)
        smoothed = self._mean_bytes + share * (mean_bytes - self._mean_bytes)
        self._mean_bytes = max(mean_bytes, smoothed)

    def start(self, job_id: str) -> Held | None:
        """The job, now running; None where it was given back meanwhile."""
        with self.changed:
            held = self._held.get(job_id)
            if held is None or held.stage is not Stage.WAITING:
                return None
            held.stage = Stage.RUNNING
            held.deadline = time.monotonic() + held.job.time_limit_ms / 1000
            return held

    def drop_waiting(self) -> list[Held]:
        """All that hasn't started, and now won't: for giving it back."""
        with self.changed:
            waiting = [h for h in self._held.values() if h.stage is Stage.WAITING]
            for held in waiting:
                held.stage = Stage.DROPPED
            return waiting

    def free_place(self, held: Held, result_bytes: int = 0) -> None:
        """Its run has ended: the next job needn't wait until the outcome is written, unless the
        bytes of those that wait for it are too many.

        Nobody is woken for that, so that those who look for room find more of it together.
        """
        with self.changed:
            if held.has_place:
                held.size += _RESULT_MEMORY * result_bytes
                self._bytes += _RESULT_MEMORY * result_bytes
            self._free_place(held)

    def _free_place(self, held: Held) -> None:
        if held.has_place:
            held.has_place = False
            self._running[held.type.name] -= 1
            self._counts[held.type.is_async] -= 1

    def remove(self, held: Iterable[Held]) -> None:
        """Forgets jobs whose outcome is written (or fenced off)."""
        with self.changed:
            for one in held:
                if self._held.get(one.job.id) is one:
                    del self._held[one.job.id]
                self._bytes -= one.size
                one.size = 0
                self._suspects.discard(one)
                self._free_place(one)
                if not one.type.is_async:
                    self._rate.count()
            self.changed.notify_all()

    def running(self) -> list[Held]:
        with self.changed:
            return [h for h in self._held.values() if h.stage is Stage.RUNNING and not h.settled]

    def held_longer_than(self, seconds: float) -> list[str]:
        """The ids of the jobs that were claimed before that."""
        before = time.monotonic() - seconds
        with self.changed:
            return [job_id for job_id, held in self._held.items() if held.since < before]

    def get(self, job_id: str) -> Held | None:
        return self._held.get(job_id)

    def wait_for_change(self, seconds: float) -> None:
        with self.changed:
            self.changed.wait(seconds)

    def wait_until_at_most(self, count: int, seconds: float) -> bool:
        """Waits until no more than `count` jobs are held; whether that came in time."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self._held) <= count, seconds)

    def wait_until_not_alone(self, unless: threading.Event) -> None:
        """Waits until no suspect of this process is in its first moments, and until there is room
        for the bytes of a job: others may have claimed since this consumer looked."""
        with self.changed:
            while self.room_bytes <= 0 and not unless.is_set():
                self.changed.wait(1.0)
            while self._suspects and not unless.is_set():
                seconds = max(h.alone_until for h in self._suspects) - time.monotonic()
                if seconds <= 0:
                    return
                self.changed.wait(min(seconds, 1.0))


def _alone_seconds(deaths: int) -> float:
    """How long a suspect is left alone: longer with each death, so that also what kills slowly is
    found, and never so long that one slow job blocks its process for good."""
    return min(_ALONE_MOST_SECONDS, float(_ALONE_SECONDS * 4 ** min(deaths - 1, 10)))


class Rate:
    """Events a second, over the last moments (an exponential average)."""

    def __init__(self, memory_seconds: float) -> None:
        self._memory_seconds = memory_seconds
        self._level, self._at = 0.0, time.monotonic()

    def count(self) -> None:
        self._decay()
        self._level += 1 / self._memory_seconds

    def per_second(self) -> float:
        self._decay()
        return self._level

    def _decay(self) -> None:
        now = time.monotonic()
        self._level *= max(0.0, 1 - (now - self._at) / self._memory_seconds)
        self._at = now
