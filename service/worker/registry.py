"""What this process holds: jobs that it has claimed and whose outcome is not written yet.

How many it may hold follows how long they run: hundreds of jobs of a millisecond, no more than
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

_AHEAD_SECONDS = (0.02, 0.1)
_CLAIMS_AHEAD = 4
"""So much work may wait for each thread: what it does while four claims are made, in bounds."""
_MOST_WAITING = 500
_WORTH_A_CLAIM = 3
"""A claim waits until a third of what may be held ahead is free: one for each single place that
becomes free would cost a round trip a job."""
_STALE_SECONDS = 0.25
"""Where no run has ended for so long, those that go on are longer than the mean says."""
_TYPE_SHARE = 0.6
_NEARLY = 0.1
_SLOW_SECONDS = 0.15
_ALONE_SECONDS = 5.0
_ALONE_MOST_SECONDS = 600.0
_MEAN_MEMORY_JOBS = 256
_RESULT_MEMORY = 2
"""Bytes of memory for each byte of a result's JSON: text takes one, objects several."""
_LOOK_SECONDS = 1.0
_NEWEST_SHARE = 0.1
_SHORTEST_SECONDS = 1e-5

Claim = tuple[str, str]
"""A job's id and its claim's token: the same job may be held twice, under two claims."""


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
    """Whether an attempt_result was taken for it: the first one counts, whoever is later."""
    cancelled: bool = False
    alone_until: float = 0.0
    """Monotonic time until which nothing else should be claimed; for suspects."""
    since: float = field(default_factory=time.monotonic)
    """Monotonic time of its claim."""
    started: float = field(default=float("inf"))
    """Monotonic time at which its run began."""
    deadline: float = field(default=float("inf"))
    """Monotonic time of its time limit, once it runs."""
    task: Any = None
    """The asyncio task of an asynchronous handler."""
    size: int = 0
    """Bytes of memory that it takes, about, its result included once there is one."""

    def __post_init__(self) -> None:
        self.cancelled = self.cancelled or self.job.cancel_requested
        self.size = self.job.size or 0

    @property
    def claim(self) -> Claim:
        return self.job.id, self.job.claim


class Registry:
    """Every `Held` of this process, by job id and claim. Thread-safe."""

    def __init__(
        self,
        threads: int,
        async_concurrency: int,
        types: Iterable[EventType],
        max_bytes: int = 134_217_728,
    ) -> None:
        self._held: dict[Claim, Held] = {}
        self._waiting: dict[str, Held] = {}
        self._waiting_of: Counter[str] = Counter()
        self._suspects: set[Held] = set()
        self._places: Counter[str] = Counter()
        self._places_of_kind = {True: 0, False: 0}
        self.changed = threading.Condition()
        self._threads, self._async_concurrency = threads, async_concurrency
        self._max_bytes, self._bytes, self._mean_bytes = max_bytes, 0, 0.0
        self._run_times = RunTimes()
        self._ahead_seconds = _AHEAD_SECONDS[0]
        self._types = list(types)
        kinds = Counter(t.is_async for t in self._types)
        self._share = _TYPE_SHARE if kinds[True] > 1 else 1.0
        self._thread_limit = max(1, threads - 1) if kinds[False] > 1 else threads

    def __len__(self) -> int:
        return len(self._held)

    # how many more

    def room(self, event_type: EventType) -> int:
        """How many more jobs of this type the process should hold. One type alone never takes all:
        what it may hold leaves something for the others."""
        own = self._places[event_type.name]
        if event_type.is_async:
            free = self._async_concurrency - self._places_of_kind[True]
            places = min(max(1, int(self._share * (free + own))) - own, free)
        else:
            idle = max(0, self._threads - self._places_of_kind[False])
            limit = self._thread_limit + self._ahead(event_type)
            ahead = self._ahead(event_type, self._waiting_seconds())
            places = min(limit - own, idle + ahead)
        return max(0, self._that_fit(places))

    def _that_fit(self, places: int) -> int:
        """How many jobs of the average size find room, of so many; one as long as there is any."""
        if self.room_bytes > places * self._mean_bytes:
            return places
        return max(1, int(self.room_bytes / self._mean_bytes)) if self.room_bytes > 0 else 0

    @property
    def room_bytes(self) -> int:
        """How many more bytes of jobs the process should hold."""
        return self._max_bytes - self._bytes

    def is_worth_a_claim(self, event_type: EventType) -> bool:
        """Whether there is room for so many jobs of this type that a claim pays."""
        least = 1 if event_type.is_async else self._ahead(event_type) // _WORTH_A_CLAIM
        return self.room(event_type) >= max(1, least)

    def clogged(self) -> set[str]:
        """Types that have (next to) no room for more, with jobs that take their time."""
        full = {t.name for t in self._types if self._is_nearly_full(t)}
        if not full:
            return full
        before = time.monotonic() - _SLOW_SECONDS
        with self.changed:
            slow = {h.type.name for h in self._held.values() if h.since < before}
        return full & slow

    def claim_took(self, seconds: float) -> None:
        """Learns how long a claim takes, which is how long threads must have something to do."""
        wanted = min(max(_CLAIMS_AHEAD * seconds, _AHEAD_SECONDS[0]), _AHEAD_SECONDS[1])
        self._ahead_seconds += _NEWEST_SHARE * (wanted - self._ahead_seconds)

    def _is_nearly_full(self, event_type: EventType) -> bool:
        if event_type.is_async:
            return self.room(event_type) <= _NEARLY * self._places[event_type.name]
        return not self.is_worth_a_claim(event_type)

    def _ahead(self, event_type: EventType, taken_seconds: float = 0.0) -> int:
        """How many jobs of this type the threads run in the time that may be held ahead, less what
        is taken of it."""
        seconds = self._threads * self._ahead_seconds - taken_seconds
        if seconds <= 0 or self._run_times.are_stale():
            return 0
        most = min(_MOST_WAITING, self._max_bytes / max(1.0, self._mean_bytes))
        return int(min(most, seconds / self._run_times.mean(event_type.name)))

    def _waiting_seconds(self) -> float:
        """How long the runs of all that waits for a thread will take."""
        waiting = [(name, count) for name, count in self._waiting_of.copy().items() if count]
        return sum(count * self._run_times.mean(name) for name, count in waiting)

    # in and out

    def add(self, held: Iterable[Held]) -> None:
        with self.changed:
            count, before = 0, self._bytes
            for one in held:
                count += 1
                self._bytes += one.size
                self._place(one)
            if count:
                self._learn_size(count, (self._bytes - before) / count)

    def _place(self, held: Held) -> None:
        """A process that lost a job and claimed it anew holds it twice: the former run may go on,
        but what had not begun won't."""
        if (former := self._waiting.get(held.job.id)) is not None:
            self._leave_line(former, Stage.DROPPED)
            self._forget(former)
        self._held[held.claim] = self._waiting[held.job.id] = held
        if held.job.company is not None:
            held.alone_until = time.monotonic() + _alone_seconds(held.job.deaths)
            self._suspects.add(held)
        self._places[held.type.name] += 1
        self._places_of_kind[held.type.is_async] += 1
        if not held.type.is_async:
            self._waiting_of[held.type.name] += 1

    def _learn_size(self, count: int, mean_bytes: float) -> None:
        """So large were so many jobs: up at once, because too many would have to be given back;
        down with time."""
        share = min(1.0, count / _MEAN_MEMORY_JOBS)
        smoothed = self._mean_bytes + share * (mean_bytes - self._mean_bytes)
        self._mean_bytes = max(mean_bytes, smoothed)

    def start(self, job_id: str) -> Held | None:
        """The job, now running; None where it was given back meanwhile."""
        with self.changed:
            held = self._waiting.get(job_id)
            if held is not None:
                self._leave_line(held, Stage.RUNNING)
                held.started = time.monotonic()
                held.deadline = held.started + held.job.time_limit_ms / 1000
            return held

    def drop_waiting(self) -> list[Held]:
        """All that hasn't started, and now won't: for giving it back."""
        with self.changed:
            waiting = list(self._waiting.values())
            for held in waiting:
                self._leave_line(held, Stage.DROPPED)
            return waiting

    def _leave_line(self, held: Held, stage: Stage) -> None:
        held.stage = stage
        if self._waiting.get(held.job.id) is held:
            del self._waiting[held.job.id]
            if not held.type.is_async:
                self._waiting_of[held.type.name] -= 1

    def free_place(self, held: Held, result_bytes: int = 0) -> None:
        """Its run has ended: the next job needn't wait until the outcome is written, unless the
        bytes of those that wait for it are too many."""
        with self.changed:
            if not held.has_place:
                return
            self._free_place(held)
            held.size += _RESULT_MEMORY * result_bytes
            self._bytes += _RESULT_MEMORY * result_bytes
            if held.type.is_async:
                return
            if held.stage is Stage.RUNNING:
                self._run_times.add(held.type.name, time.monotonic() - held.started)
            if self.is_worth_a_claim(held.type):
                self.changed.notify_all()

    def _free_place(self, held: Held) -> None:
        if held.has_place:
            held.has_place = False
            self._places[held.type.name] -= 1
            self._places_of_kind[held.type.is_async] -= 1

    def remove(self, held: Iterable[Held]) -> None:
        """Forgets jobs whose outcome is written (or fenced off)."""
        with self.changed:
            for one in held:
                self._leave_line(one, one.stage)
                self._forget(one)
            self.changed.notify_all()

    def _forget(self, held: Held) -> None:
        if self._held.get(held.claim) is held:
            del self._held[held.claim]
        self._bytes -= held.size
        held.size = 0
        self._suspects.discard(held)
        self._free_place(held)

    def running(self) -> list[Held]:
        with self.changed:
            return [h for h in self._held.values() if h.stage is Stage.RUNNING and not h.settled]

    def held_longer_than(self, seconds: float) -> list[Held]:
        """The jobs that were claimed before that."""
        before = time.monotonic() - seconds
        with self.changed:
            return [held for held in self._held.values() if held.since < before]

    def holds(self, job_id: str, claim: str) -> bool:
        return (job_id, claim) in self._held

    def wait_until_worth_a_claim(self, types: Iterable[EventType], seconds: float) -> None:
        """Waits until a claim of one of these types pays, or for so long."""
        with self.changed:
            self.changed.wait_for(lambda: any(map(self.is_worth_a_claim, types)), seconds)

    def wait_for_change(self, seconds: float) -> None:
        with self.changed:
            self.changed.wait(seconds)

    def wait_until_at_most(
        self, count: int, seconds: float, unless: threading.Event | None = None
    ) -> bool:
        """Waits until no more than `count` jobs are held; whether that came in time."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while len(self._held) > count:
                left = deadline - time.monotonic()
                if left <= 0 or (unless is not None and unless.is_set()):
                    return False
                self.changed.wait(min(left, _LOOK_SECONDS))
            return True

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
                self.changed.wait(min(seconds, _LOOK_SECONDS))


def _alone_seconds(deaths: int) -> float:
    """How long a suspect is left alone: longer with each death, so that also what kills slowly is
    found, and never so long that one slow job blocks its process for good."""
    return min(_ALONE_MOST_SECONDS, float(_ALONE_SECONDS * 4 ** min(deaths - 1, 10)))


class RunTimes:
    """How long runs on threads take, by type: an exponential average, in seconds."""

    def __init__(self) -> None:
        self._mean: dict[str, float] = {}
        self._newest = float("-inf")

    def add(self, name: str, seconds: float) -> None:
        self._newest = time.monotonic()
        mean = self._mean.get(name, seconds)
        self._mean[name] = max(_SHORTEST_SECONDS, mean + _NEWEST_SHARE * (seconds - mean))

    def mean(self, name: str) -> float:
        """Of a type that never ran, infinite: it may be a slow one."""
        return self._mean.get(name, float("inf"))

    def are_stale(self) -> bool:
        return time.monotonic() - self._newest > _STALE_SECONDS
