"""How many more jobs this process should hold, of which type.

Plain functions: one for each idle thread, and as much work ahead as all threads do in a few
hundredths of a second, by the mean run time of each type: hundreds of jobs of a millisecond, none
of a second, so that no thread waits for a claim and no job sits behind a busy worker while another
idles. Coroutines start at once and are bounded by a setting. And whatever their number, jobs and
results that aren't written yet take no more memory than another setting says, beyond it at most
one job: claiming asks for as many as fit by what those before took on average, and gives back what
turns out to be too much.

Fairness costs nothing until there is somebody to be fair to: a type may have all threads (all
places), but where its runs take long and another type was claimed lately, it leaves some. Where
they take very long, or nobody knows, it does so for every other type that there is: the first one
that comes would wait for the end of a run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence

from service.catalog import EventType
from service.worker.holding.job import InFlightJob
from service.worker.holding.run_times import RunTimes

_AHEAD_SECONDS = (0.025, 0.1)
_CLAIMS_AHEAD = 4
"""So much work may wait for each thread: what it does while four claims are made, in bounds."""
_MOST_AHEAD = 500
_MOST_UNWRITTEN = 4_000
"""Outcomes that wait to be written: more of them, and claiming would outrun writing."""
_WORTH_OF_PLACES = 8
"""A claim of coroutines waits until so much of the places is free: an eighth."""
_PAUSE_SECONDS = 0.01
_SLOW_SECONDS = 0.1
_VERY_SLOW_SECONDS = 0.3
"""As long as that nobody else should have to wait."""
_NEIGHBOUR_SECONDS = 600.0
_LEAVES = 0.1
_MEAN_MEMORY_JOBS = 256
_RESULT_MEMORY = 2
"""Bytes of memory for each byte of a result's JSON: text takes one, objects several."""
_NEWEST_SHARE = 0.1


class Load:
    """What this process holds: threads, places and memory that are taken, and by which types.

    Counts what comes and goes under the lock of `InFlight`; answers without it. As only one thread
    claims, what it is told may only be too little.
    """

    def __init__(
        self,
        threads: int,
        places: int,
        max_bytes: int = 134_217_728,
        types: Iterable[EventType] = (),
    ) -> None:
        """`places`: for coroutines. `types`: all of which jobs may come."""
        self.threads, self._places = threads, places
        self._types_of_kind = Counter(event_type.is_async for event_type in types)
        self._max_bytes, self._bytes, self._mean_bytes = max_bytes, 0, 0.0
        self._taken: Counter[str] = Counter()
        self._taken_of_kind = {True: 0, False: 0}
        self._ready: Counter[str] = Counter()
        self._unwritten = 0
        self._claimed_at: dict[bool, dict[str, float]] = {True: {}, False: {}}
        self.run_times = RunTimes()
        self._claim_seconds = _AHEAD_SECONDS[0] / _CLAIMS_AHEAD

    # what comes and goes

    def take(self, jobs: Iterable[InFlightJob]) -> None:
        count, before = 0, self._bytes
        for job in jobs:
            count += 1
            self._bytes += job.size
            self._taken[job.type.name] += 1
            self._taken_of_kind[job.is_async] += 1
            self._claimed_at[job.is_async][job.type.name] = job.since
            if not job.is_async:
                self._ready[job.type.name] += 1
        if count:
            self._learn_size(count, (self._bytes - before) / count)

    def _learn_size(self, count: int, mean_bytes: float) -> None:
        """So large were so many jobs: up at once, because too many would have to be given back;
        down with time."""
        share = min(1.0, count / _MEAN_MEMORY_JOBS)
        smoothed = self._mean_bytes + share * (mean_bytes - self._mean_bytes)
        self._mean_bytes = max(mean_bytes, smoothed)

    def leave_line(self, job: InFlightJob) -> None:
        """It waits no longer for a thread."""
        if not job.is_async:
            self._ready[job.type.name] -= 1

    def free_place(self, job: InFlightJob, result_bytes: int = 0) -> None:
        """Its run has ended, and the next job needn't wait until its outcome is written."""
        job.has_place = False
        self._taken[job.type.name] -= 1
        self._taken_of_kind[job.is_async] -= 1
        self._unwritten += 1
        job.size += _RESULT_MEMORY * result_bytes
        self._bytes += _RESULT_MEMORY * result_bytes

    def forget(self, job: InFlightJob) -> None:
        """Its outcome is written, or it is somebody else's."""
        if job.has_place:
            self.free_place(job)
        self._unwritten -= 1
        self._bytes -= job.size
        job.size = 0

    def claim_took(self, seconds: float) -> None:
        """Learns how long a claim takes, which is how long threads must have something to do."""
        self._claim_seconds += _NEWEST_SHARE * (seconds - self._claim_seconds)

    # what is left

    @property
    def room_bytes(self) -> int:
        """How many more bytes of jobs the process should hold."""
        return self._max_bytes - self._bytes

    @property
    def free_places(self) -> int:
        """For coroutines."""
        return self._places - self._taken_of_kind[True]

    @property
    def idle_threads(self) -> int:
        """Threads for which there is no job, running or ready."""
        return max(0, self.threads - self._taken_of_kind[False])

    @property
    def claim_pause_seconds(self) -> float:
        """So long after a claim another one of few coroutines pays."""
        return max(_PAUSE_SECONDS, 2 * self._claim_seconds)

    def taken(self, event_type: EventType) -> int:
        return self._taken[event_type.name]


class Capacity(Load):
    """How many more there should be, and when it pays to claim them."""

    def room(self, event_type: EventType) -> int:
        """How many more jobs of this type alone the process should hold."""
        return self.allot([event_type])[event_type.name]

    def allot(self, types: Sequence[EventType]) -> dict[str, int]:
        """How many jobs of each type the process should claim together: they share what there is
        of threads, places and memory. Where there isn't enough for all, the first ones get it."""
        given: dict[str, int] = {}
        left = self._that_fit(_MOST_UNWRITTEN - self._unwritten)
        places, threads = _Places(self, types), _Threads(self, types)
        for event_type in types:
            pool: _Places | _Threads = places if event_type.is_async else threads
            count = max(0, min(left, pool.share_of(event_type)))
            given[event_type.name] = count
            left -= count
        return given

    def _that_fit(self, count: int) -> int:
        """How many jobs of the average size find room, of so many; one as long as there is any."""
        if self.room_bytes > count * self._mean_bytes:
            return count
        return max(1, int(self.room_bytes / self._mean_bytes)) if self.room_bytes > 0 else 0

    def leaves_some(self, event_type: EventType) -> bool:
        """Whether its runs take long, and there is another type to leave something for."""
        mean = self.run_times.mean(event_type.name)
        if mean <= _SLOW_SECONDS:
            return False
        if mean > _VERY_SLOW_SECONDS and self._types_of_kind[event_type.is_async] > 1:
            return True
        before = time.monotonic() - _NEIGHBOUR_SECONDS
        claimed_at = self._claimed_at[event_type.is_async].copy()
        return any(at > before for name, at in claimed_at.items() if name != event_type.name)

    # when a claim pays

    def is_worth_a_claim(self, *, is_async: bool, since_claim_seconds: float) -> bool:
        """Whether a claim of coroutines, or of plain functions, pays now, so long after the last
        one: one for each single place that becomes free would cost a round trip a job."""
        if is_async:
            least = max(1, self._places // _WORTH_OF_PLACES)
            return self.free_places >= least or since_claim_seconds >= self.claim_pause_seconds
        return self.idle_threads > 0 or self.ready_seconds() <= self.ahead_seconds() / 2

    @property
    def waits_for_writes(self) -> bool:
        """Whether there is no room before outcomes are written."""
        return self._that_fit(_MOST_UNWRITTEN - self._unwritten) <= 0

    def ahead_seconds(self) -> float:
        """How much work may wait for the threads, in seconds of one thread."""
        wanted = min(max(_CLAIMS_AHEAD * self._claim_seconds, _AHEAD_SECONDS[0]), _AHEAD_SECONDS[1])
        return self.threads * wanted

    def ready_seconds(self) -> float:
        """How long the runs of all that waits for a busy thread will take."""
        if self._taken_of_kind[False] <= self.threads:
            return 0.0
        waiting = [(name, count) for name, count in self._ready.copy().items() if count]
        return sum(count * self.run_times.mean(name) for name, count in waiting)

    def worth_of_ready(self) -> int:
        """At which number of ready jobs a claim pays; -1: where a thread has none."""
        ready, seconds = sum(self._ready.copy().values()), self.ready_seconds()
        half = self.ahead_seconds() / 2
        return int(ready * half / seconds) if seconds > half else -1

    def worth_of_places(self) -> int:
        """At which number of free places for coroutines a claim pays."""
        return max(1, self._places // _WORTH_OF_PLACES) if self.free_places else 1

    def most_ahead(self) -> int:
        """How many jobs may wait for threads at most, however short they are."""
        return min(_MOST_AHEAD, int(self._max_bytes / max(1.0, self._mean_bytes)))


class _Places:
    """The places for coroutines, while they are shared out."""

    def __init__(self, capacity: Capacity, types: Sequence[EventType]) -> None:
        self._capacity, self._free = capacity, capacity.free_places
        self._to_come = sum(t.is_async for t in types)

    def share_of(self, event_type: EventType) -> int:
        share = -(-self._free // self._to_come)
        self._to_come -= 1
        if self._capacity.leaves_some(event_type):
            own = self._capacity.taken(event_type)
            share = min(share, max(1, int((1 - _LEAVES) * (self._free + own))) - own)
        share = max(0, share)
        self._free -= share
        return share


class _Threads:
    """Idle threads, and the time ahead of busy ones, while they are shared out."""

    def __init__(self, capacity: Capacity, types: Sequence[EventType]) -> None:
        self._capacity, self._idle = capacity, capacity.idle_threads
        self._stale = capacity.run_times.are_stale()
        self._seconds = capacity.ahead_seconds() - capacity.ready_seconds()
        self._most = capacity.most_ahead()
        self._to_come = sum(not t.is_async for t in types)
        self._least = max(1, capacity.threads // max(1, self._to_come))

    def share_of(self, event_type: EventType) -> int:
        own = self._capacity.taken(event_type)
        idle = -(-self._idle // self._to_come)
        if self._capacity.leaves_some(event_type):
            idle = max(0, min(idle, max(1, self._capacity.threads - 1) - own))
            ahead = 0
        else:
            ahead = self._ahead(event_type)
        if not idle and not ahead and self._waits_for_its_turn(own):
            ahead = 1
        self._to_come -= 1
        self._idle -= idle
        return idle + ahead

    def _ahead(self, event_type: EventType) -> int:
        if self._stale or self._seconds <= 0:
            return 0
        mean = self._capacity.run_times.mean(event_type.name)
        ahead = min(int(self._seconds / self._to_come / mean), self._most // self._to_come)
        if ahead:
            self._seconds -= ahead * mean
        return ahead

    def _waits_for_its_turn(self, own: int) -> bool:
        """While short jobs follow one another, no thread is ever idle: a type of long ones gets in
        line behind them, as long as it has less than its part of the threads."""
        short_ones = 0 < self._capacity.ready_seconds() < self._capacity.ahead_seconds()
        return short_ones and not self._stale and own < self._least
