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
from collections.abc import Callable

import redis

from service.errors import StoreUnavailable
from service.worker.claiming.claimer import Claimer, Draining
from service.worker.claiming.course import Course, choose
from service.worker.claiming.listener import Listener
from service.worker.claiming.redis_look import RedisLook
from service.worker.claiming.source import Source
from service.worker.claiming.supply import Supply
from service.worker.claiming.wants import Wants

_log = logging.getLogger(__name__)
_MOST = 512
_MOST_SUSPECTS = 512
_PAUSE_SECONDS = 0.25


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
        self._mongo, self._look_for_lost_calls = in_mongodb, look_for_lost_calls
        self._wants = Wants(supply, claimer)
        self.redis_look = RedisLook(
            supply,
            in_redis,
            listener,
            self._wants,
            claimer,
            look_for_lost_calls=look_for_lost_calls,
        )
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
        return self.redis_look.take()

    def _rest(self) -> float:
        self.redis_look.return_hints()
        return _PAUSE_SECONDS

    def _isolate(self) -> float:
        """What has been claimed is left alone."""
        self.redis_look.return_hints()
        self._supply.in_flight.watermarks.set(written=True)
        return min(self._supply.in_flight.isolation.seconds_left(), 1.0)

    def _take_suspects(self) -> float:
        """Jobs that were held by a process that died, in ever smaller company."""
        self.redis_look.return_hints()
        supply = self._supply
        waiting = supply.store.waiting.suspects(
            self._wants.types, supply.clock.now(), _MOST_SUSPECTS
        )
        if not waiting:
            supply.suspects_wait.clear()
            return 0.0
        company = waiting[0][1]
        ids = [job_id for job_id, least in waiting if least >= company][:company]
        self._claimer.claim_suspects(ids)
        return 0.0

    def _take_from_mongo(self) -> float:
        self._listener.inbox.clear()
        self._look_for_lost_calls()
        lanes, began = self._wants.lanes, time.monotonic()
        wants = self._wants.now(lanes)
        taken = self._mongo.take(wants, min(_MOST, sum(wants.values()))) if wants else []
        if taken and self._claimer.claim(taken).held:
            self._supply.in_flight.capacity.claim_took(time.monotonic() - began)
            return 0.0
        if len(wants) < len(lanes):
            self._wants.wake_for(set(lanes) - wants.keys())
        return _PAUSE_SECONDS
