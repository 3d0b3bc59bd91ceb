"""Supplies this process with jobs: the only thread that claims.

It looks where there may be something for which there is room, claims all of it together, and sleeps
until something happens: a hint from the listener, room that is worth a claim, suspects, Redis gone
or back. While nothing waits it costs next to nothing.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import redis

from service.errors import StoreUnavailable
from service.job import Hint
from service.queue.lanes import Lane
from service.worker.claiming.claimer import Claimer, Draining
from service.worker.claiming.listener import Listener
from service.worker.claiming.source import Source
from service.worker.claiming.supply import Supply

_log = logging.getLogger(__name__)
_MOST = 512
_MOST_SUSPECTS = 512
_LOOK_SECONDS = 5.0
_BESIDE_SECONDS = 0.05
"""While jobs of one type wait for room, nobody listens: so often others are looked for."""
_PAUSE_SECONDS = 0.25
_FEW_LANES = 32
"""So many lanes are simply asked for; of more, only those that are known to have something."""


class Course(Enum):
    """What the supplier does next."""

    REST = "rest"
    ISOLATE = "isolate"
    SUSPECTS = "suspects"
    MONGODB = "mongodb"
    REDIS = "redis"


def choose(*, may_claim: bool, is_isolated: bool, suspects_wait: bool, redis_away: bool) -> Course:
    """Suspects come first, and nothing comes beside them; MongoDB is asked where Redis is away."""
    if not may_claim:
        return Course.REST
    if is_isolated:
        return Course.ISOLATE
    if suspects_wait:
        return Course.SUSPECTS
    return Course.MONGODB if redis_away else Course.REDIS


class Supplier(threading.Thread):
    """Where it fails, it says so and goes on: no process is of use without it."""

    def __init__(
        self,
        supply: Supply,
        claimer: Claimer,
        listener: Listener,
        *,
        in_redis: Source,
        in_mongodb: Source,
        look_for_lost_calls: Callable[[], None],
    ) -> None:
        super().__init__(name="supplier", daemon=True)
        self._supply, self._claimer, self._listener = supply, claimer, listener
        self._redis, self._mongo = in_redis, in_mongodb
        self._look_for_lost_calls = look_for_lost_calls
        self._types = {t.name: t for t in supply.catalog if t.queue in supply.queues}
        self._lanes = [Lane(t.queue, t.name) for t in self._types.values()]
        self._turn = 0
        self._look_at = 0.0
        self._stopped = False
        self._rng = random.Random()

    def stop(self) -> None:
        self._stopped = True
        self._supply.wake.set()

    def run(self) -> None:
        while not self._stopped:
            seconds = self.step()
            if seconds > 0:
                self._supply.wake.wait(seconds)
                self._supply.wake.clear()

    def step(self) -> float:
        """One look for jobs; after how many seconds to look again, where nothing wakes it."""
        try:
            return self._step()
        except StoreUnavailable as error:
            _log.warning("no jobs can be claimed: %s", error)
            return self._rng.uniform(_PAUSE_SECONDS, 4 * _PAUSE_SECONDS)
        except redis.RedisError as error:
            _log.warning("Redis is away, jobs come straight from MongoDB: %s", error)
            self._supply.redis_away.set()
        except Draining:
            return _PAUSE_SECONDS
        except Exception:
            _log.exception("jobs could not be looked for")
            return _PAUSE_SECONDS
        return 0.0

    def _step(self) -> float:
        supply = self._supply
        supply.in_flight.watermarks.set()
        course = choose(
            may_claim=supply.lease.is_valid and not supply.draining.is_set(),
            is_isolated=supply.in_flight.isolation.seconds_left() > 0,
            suspects_wait=supply.suspects_wait.is_set(),
            redis_away=supply.redis_away.is_set(),
        )
        match course:
            case Course.REST:
                return self._rest()
            case Course.ISOLATE:
                return self._isolate()
            case Course.SUSPECTS:
                return self._take_suspects()
            case Course.MONGODB:
                return self._take_from_mongo()
        return self._take_from_redis()

    def _rest(self) -> float:
        self._return_hints()
        return _PAUSE_SECONDS

    def _isolate(self) -> float:
        """What has been claimed is left alone."""
        self._return_hints()
        self._supply.in_flight.watermarks.set(written=True)
        return min(self._supply.in_flight.isolation.seconds_left(), 1.0)

    def _hints(self) -> list[Hint]:
        inbox = self._listener.inbox
        return [inbox.popleft() for _ in range(len(inbox))]

    def _return_hints(self) -> None:
        """For other workers."""
        self._listener.turn_off()
        if hints := self._hints():
            self._redis.return_unclaimed(hints, wake=True)

    # suspects

    def _take_suspects(self) -> float:
        """Jobs that were held by a process that died, in ever smaller company."""
        self._return_hints()
        supply = self._supply
        types = list(self._types)
        waiting = supply.store.waiting.suspects(types, supply.clock.now(), _MOST_SUSPECTS)
        if not waiting:
            supply.suspects_wait.clear()
            return 0.0
        company = waiting[0][1]
        ids = [job_id for job_id, least in waiting if least >= company][:company]
        self._claimer.claim_suspects(ids)
        return 0.0

    # all others

    def _take_from_redis(self) -> float:
        """Claims what came alone at once, then what else there is."""
        source = self._redis
        if hints := self._hints():
            self._claim_hints(hints)
        now = time.monotonic()
        wants = self._wants(source.waiting)
        if now >= self._look_at:
            self._look_for_lost_calls()
            wants = wants or self._beside()
        elif not wants:
            return self._wait_for_room() if source.waiting else self._listen()
        taken = source.take(wants, max(1, min(_MOST, sum(wants.values()))))
        self._look_at = now + _BESIDE_SECONDS
        if taken:
            self._claim(source, taken)
            self._supply.in_flight.capacity.claim_took(time.monotonic() - now)
            return 0.0
        return self._after_nothing(wants)

    def _after_nothing(self, asked: Mapping[Lane, int]) -> float:
        """What was asked for had nothing."""
        if not self._redis.waiting:
            return self._listen()
        wants = self._wants(self._redis.waiting)
        if wants.keys() - asked.keys():
            return 0.0
        if wants:  # they are being poured, or others were faster
            self._listener.turn_on()
            return _BESIDE_SECONDS
        return self._wait_for_room()

    def _claim_hints(self, hints: Sequence[Hint]) -> None:
        """A hint that finds no room is another worker's; this one listens no more until it has
        looked what it has room for."""
        fitting: list[Hint] = []
        others: list[Hint] = []
        for hint in hints:
            event_type = self._types.get(hint.type)
            fits = event_type is not None and self._supply.in_flight.capacity.room(event_type)
            (fitting if fits else others).append(hint)
        self._redis.waiting |= self._lanes_of(hints)
        if others:
            self._listener.turn_off()
            self._put_back(self._redis, others, wake=True)
        if fitting:
            self._claim(self._redis, fitting)

    def _take_from_mongo(self) -> float:
        self._listener.inbox.clear()
        self._look_for_lost_calls()
        began, wants = time.monotonic(), self._wants(self._lanes)
        taken = self._mongo.take(wants, min(_MOST, sum(wants.values()))) if wants else []
        if taken and self._claim(self._mongo, taken):
            self._supply.in_flight.capacity.claim_took(time.monotonic() - began)
            return 0.0
        if len(wants) < len(self._lanes):
            self._set_watermarks(set(self._lanes) - wants.keys())
        return _PAUSE_SECONDS

    def _claim(self, source: Source, hints: Sequence[Hint]) -> bool:
        """Whether any were won."""
        try:
            won = self._claimer.claim(hints)
        except (StoreUnavailable, Draining) as error:
            self._put_back(source, hints, wake=isinstance(error, Draining))
            raise
        if won.too_large:
            self._put_back(source, won.too_large, wake=True)
        return bool(won.held)

    def _put_back(self, source: Source, hints: Sequence[Hint], *, wake: bool) -> None:
        source.waiting |= self._lanes_of(hints)
        source.return_unclaimed(hints, wake=wake)

    def _lanes_of(self, hints: Sequence[Hint]) -> set[Lane]:
        return {Lane(hint.queue, hint.type) for hint in hints if hint.type in self._types}

    # for what there is room

    def _wants(self, lanes: Iterable[Lane]) -> dict[Lane, int]:
        """How many of each of these lanes to claim now, where that pays."""
        since = time.monotonic() - self._claimer.last_claim
        pays = {
            kind: self._supply.in_flight.capacity.is_worth_a_claim(
                is_async=kind, since_claim_seconds=since
            )
            for kind in (True, False)
        }
        return self._allotted([w for w in lanes if pays[self._types[w.type].is_async]])

    def _beside(self) -> dict[Lane, int]:
        """Those lanes of which nothing is known. Where they are many, a look tells."""
        if len(self._lanes) > _FEW_LANES:
            return {}
        return self._allotted([lane for lane in self._lanes if lane not in self._redis.waiting])

    def _allotted(self, lanes: Sequence[Lane]) -> dict[Lane, int]:
        """What the lanes get, from another one on each time."""
        if not lanes:
            return {}
        self._turn += 1
        ordered = sorted(lanes)
        start = self._turn % len(ordered)
        ordered = ordered[start:] + ordered[:start]
        capacity = self._supply.in_flight.capacity
        allotted = capacity.allot([self._types[lane.type] for lane in ordered])
        return {lane: allotted[lane.type] for lane in ordered if allotted[lane.type] > 0}

    # waiting

    def _wait_for_room(self) -> float:
        """What waits finds no room that would be worth a claim."""
        waiting = self._redis.waiting
        self._set_watermarks(waiting)
        if self._wants(waiting):
            return 0.0
        now = time.monotonic()
        self._look_at = min(self._look_at, now + _BESIDE_SECONDS)
        seconds = max(0.001, self._look_at - now)
        if any(self._types[lane.type].is_async for lane in waiting):
            capacity = self._supply.in_flight.capacity
            return min(seconds, capacity.claim_pause_seconds) if capacity.free_places else seconds
        return seconds

    def _set_watermarks(self, waiting: Iterable[Lane]) -> None:
        capacity = self._supply.in_flight.capacity
        kinds = {self._types[lane.type].is_async for lane in waiting}
        marks: dict[str, Any] = {"written": capacity.waits_for_writes}
        if True in kinds:
            marks["places"] = capacity.worth_of_places()
        if False in kinds:
            marks["ready"] = capacity.worth_of_ready()
        self._supply.in_flight.watermarks.set(**marks)

    def _listen(self) -> float:
        """Nothing waits."""
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._listener.turn_on()
        return _LOOK_SECONDS
