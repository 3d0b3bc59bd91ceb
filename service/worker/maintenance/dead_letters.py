"""Dead letters that never arrived."""

from __future__ import annotations

from service.clock import ServerClock
from service.queue.broker import DEAD_LETTER_ACTOR, PulseBroker
from service.store import JobStore
from service.worker.maintenance import sweep


class DeadLetterSender:
    """The sweep's slowest part."""

    def __init__(self, store: JobStore, broker: PulseBroker, clock: ServerClock) -> None:
        self._store, self._broker, self._clock = store, broker, clock

    def send(self) -> None:
        """Raises `StoreUnavailable` and `redis.RedisError`."""
        sweep.send_dead_letters(self._store, self._broker, DEAD_LETTER_ACTOR, self._clock.now())
