"""How a worker process ends: it claims nothing more, and leaves nothing behind that it holds."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

import redis

from service.errors import StoreUnavailable
from service.store import LeaderLease, Membership
from service.worker.claiming.supply import Supply
from service.worker.finishing.committer import Committer
from service.worker.maintenance.lost_claims import LostClaims
from service.worker.running.runner import Runner

_log = logging.getLogger(__name__)
_LAST_WRITES_SECONDS = 2.0


class Shutdown:
    """`wake()` breaks off the waiting of whoever claims."""

    def __init__(
        self,
        *,
        supply: Supply,
        runner: Runner,
        committer: Committer,
        lost_claims: LostClaims,
        leader: LeaderLease,
        membership: Membership,
        grace_seconds: float,
        last_claim_seconds: float,
        wake: Callable[[], None],
    ) -> None:
        self._supply, self._runner, self._committer = supply, runner, committer
        self._lost_claims, self._leader, self._membership = lost_claims, leader, membership
        self._grace_seconds, self._last_claim_seconds = grace_seconds, last_claim_seconds
        self._wake = wake
        self.is_asked = threading.Event()

    def ask(self) -> bool:
        """From the signal's handler: starts giving back at once, without waiting for Dramatiq.
        False where that was asked before."""
        if self.is_asked.is_set():
            return False
        self.is_asked.set()
        threading.Thread(target=self.drain, name="drain", daemon=True).start()
        return True

    def drain(self) -> None:
        """Stops claiming, and gives back what hasn't started."""
        if self._supply.draining.is_set():
            return
        self._supply.draining.set()
        self._runner.stopping.set()
        self._wake()
        self._runner.give_back_waiting()
        with contextlib.suppress(StoreUnavailable):
            self._leader.resign()

    def finish(self) -> bool:
        """Lets what runs finish within the grace, gives back the rest, and says goodbye; whether
        every thread came home."""
        self.drain()
        self._wait_for_last_claim()
        in_flight = self._supply.in_flight
        at_home = in_flight.wait_until_empty(self._grace_seconds)
        if not at_home:
            self._runner.give_back_waiting()
            count = self._runner.give_back_running()
            _log.warning("gave back %d jobs that were still running", count)
        in_flight.wait_until_empty(_LAST_WRITES_SECONDS)
        self._committer.flush(_LAST_WRITES_SECONDS)
        self._committer.stop()
        self._runner.loop.stop()
        with contextlib.suppress(StoreUnavailable):
            self._membership.leave()
        return at_home

    def _wait_for_last_claim(self) -> None:
        """A claim that was under way when this process was told to stop: what it won is given back
        like all else, and so is what it may have won where its reply was lost."""
        if self._supply.claiming.acquire(timeout=self._last_claim_seconds):
            self._supply.claiming.release()
        self._runner.give_back_waiting()
        if self._lost_claims.are_likely():
            with contextlib.suppress(StoreUnavailable, redis.RedisError):
                self._lost_claims.release()
