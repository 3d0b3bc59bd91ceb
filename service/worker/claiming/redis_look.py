"""The supplier's usual course: hints from Redis, as far as there is room."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from service.errors import StoreUnavailable
from service.job import Hint
from service.queue.lanes import Lane
from service.worker.claiming.claimer import Claimer, Draining
from service.worker.claiming.listener import Listener
from service.worker.claiming.source import Source
from service.worker.claiming.supply import Supply
from service.worker.claiming.wants import Wants

_MOST = 512
_LOOK_SECONDS = 5.0
_BESIDE_SECONDS = 0.05
"""While jobs of one type wait for room, nobody listens: so often others are looked for."""


class RedisLook:
    """Every method but `return_hints` raises `StoreUnavailable`, `redis.RedisError` and
    `Draining`."""

    def __init__(
        self,
        supply: Supply,
        source: Source,
        listener: Listener,
        wants: Wants,
        claimer: Claimer,
        *,
        look_for_lost_calls: Callable[[], None],
    ) -> None:
        self._supply, self._source, self._listener = supply, source, listener
        self._wants, self._claimer = wants, claimer
        self._look_for_lost_calls = look_for_lost_calls
        self.look_at = 0.0
        """Monotonic time at which also lanes of which nothing is known are looked at."""

    def take(self) -> float:
        """Claims what the listener found at once, then what else there is; after how many seconds
        to look again, where nothing wakes the supplier."""
        source = self._source
        if hints := self._heard():
            self._claim_heard(hints)
        now = time.monotonic()
        wants = self._wants.now(source.waiting)
        if now >= self.look_at:
            self._look_for_lost_calls()
            wants = wants or self._wants.beside(source.waiting)
        elif not wants:
            return self._wait_for_room() if source.waiting else self._listen()
        taken = source.take(wants, max(1, min(_MOST, sum(wants.values()))))
        self.look_at = now + _BESIDE_SECONDS
        if taken:
            self._claim(taken)
            self._supply.in_flight.capacity.claim_took(time.monotonic() - now)
            return 0.0
        return self._after_nothing(wants)

    def return_hints(self) -> None:
        """Leaves what the listener found to other workers."""
        self._listener.turn_off()
        if hints := self._heard():
            self._source.return_unclaimed(hints, wake=True)

    def _heard(self) -> list[Hint]:
        inbox = self._listener.inbox
        return [inbox.popleft() for _ in range(len(inbox))]

    def _claim_heard(self, hints: Sequence[Hint]) -> None:
        """A hint that finds no room goes to another worker. This one doesn't listen then, before it
        has looked for what it has room."""
        fitting: list[Hint] = []
        others: list[Hint] = []
        for hint in hints:
            (fitting if self._wants.has_room(hint) else others).append(hint)
        self._source.waiting |= self._wants.lanes_of(hints)
        if others:
            self._listener.turn_off()
            self._put_back(others, wake=True)
        if fitting:
            self._claim(fitting)

    def _claim(self, hints: Sequence[Hint]) -> None:
        try:
            won = self._claimer.claim(hints)
        except (StoreUnavailable, Draining) as error:
            self._put_back(hints, wake=isinstance(error, Draining))
            raise
        if won.too_large:
            self._put_back(won.too_large, wake=True)

    def _put_back(self, hints: Sequence[Hint], *, wake: bool) -> None:
        self._source.waiting |= self._wants.lanes_of(hints)
        self._source.return_unclaimed(hints, wake=wake)

    def _after_nothing(self, asked: Mapping[Lane, int]) -> float:
        """What was asked for had nothing."""
        waiting = self._source.waiting
        if not waiting:
            return self._listen()
        wants = self._wants.now(waiting)
        if wants.keys() - asked.keys():
            return 0.0
        if wants:  # they are being poured, or others were faster
            self._listener.turn_on()
            return _BESIDE_SECONDS
        return self._wait_for_room()

    def _wait_for_room(self) -> float:
        """What waits finds no room that would be worth a claim."""
        waiting = self._source.waiting
        self._wants.wake_for(waiting)
        if self._wants.now(waiting):
            return 0.0
        now = time.monotonic()
        self.look_at = min(self.look_at, now + _BESIDE_SECONDS)
        return min(max(0.001, self.look_at - now), self._wants.pays_in_seconds(waiting))

    def _listen(self) -> float:
        """Nothing waits."""
        self.look_at = time.monotonic() + _LOOK_SECONDS
        self._listener.turn_on()
        return _LOOK_SECONDS
