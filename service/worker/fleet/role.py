"""What this process may do now, beside its jobs."""

from __future__ import annotations

import threading

from service.store import LeaderLease


class Role:
    """Leader of the sweep or not, stopping or not, with Redis or without: asked before each beat
    that depends on it."""

    def __init__(
        self, leader: LeaderLease, draining: threading.Event, redis_away: threading.Event
    ) -> None:
        self._leader, self._draining, self._redis_away = leader, draining, redis_away

    def has_redis(self) -> bool:
        return not self._redis_away.is_set()

    def leads(self) -> bool:
        """A process that stops leads no longer, whatever its lease says."""
        return self._leader.is_held and not self._draining.is_set()

    def leads_with_redis(self) -> bool:
        return self.leads() and self.has_redis()

    def follows_with_redis(self) -> bool:
        """Another one leads, and this one goes on."""
        return not self._leader.is_held and not self._draining.is_set() and self.has_redis()
