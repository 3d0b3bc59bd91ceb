"""Takes the jobs of dead workers away from them, as the leader of the sweep."""

from __future__ import annotations

from service.clock import ServerClock
from service.concurrency.adaptive_interval import AdaptiveInterval
from service.store import LeaderLease, Stores
from service.worker.fleet.heartbeat import Heartbeat
from service.worker.maintenance import sweep
from service.worker.maintenance.hint_sender import HintSender


class Rescuer:
    """After an outage of MongoDB every heartbeat is old: the living get `patience_seconds` for a
    new one before anybody counts as dead for that."""

    def __init__(
        self,
        stores: Stores,
        clock: ServerClock,
        heartbeat: Heartbeat,
        leader: LeaderLease,
        hints: HintSender,
        *,
        patience_seconds: float,
    ) -> None:
        self._stores, self._clock, self._heartbeat = stores, clock, heartbeat
        self._leader, self._hints = leader, hints
        self._patience_seconds = patience_seconds
        self._interval = AdaptiveInterval()

    def hurry(self) -> None:
        """Somebody died: the next tick looks, however long ago the last look was."""
        self._interval.hurry()

    def tick(self) -> None:
        """Raises `StoreUnavailable` and `redis.RedisError`."""
        self._interval.run_if_due(self._rescue)
        self._leader.ticked()

    def _rescue(self) -> None:
        rescued = sweep.rescue(
            self._stores.jobs,
            self._stores.workers,
            self._stores.counters,
            self._clock.now(),
            believe_heartbeats=self._heartbeat.was_steady_for(self._patience_seconds),
        )
        self._hints.send(rescued)
