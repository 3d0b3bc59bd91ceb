"""Hints at jobs that wait again, where Redis is there to take them."""

from __future__ import annotations

from collections.abc import Sequence

from service.job import Hint
from service.queue.broker import PulseBroker
from service.worker.fleet.role import Role


class HintSender:
    """What isn't sent, the dispatcher finds later."""

    def __init__(self, broker: PulseBroker, role: Role) -> None:
        self._broker, self._role = broker, role

    def send(self, hints: Sequence[Hint]) -> None:
        """Raises `redis.RedisError`."""
        if hints and self._role.has_redis():
            self._broker.enqueue_many(hints)
