"""How many jobs of which lanes to claim now, and when room for more is worth another claim."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from service.job import Hint
from service.queue.lanes import Lane
from service.worker.claiming.claimer import Claimer
from service.worker.claiming.supply import Supply

_FEW_LANES = 32
"""So many lanes are simply asked for; of more, only those that are known to have something."""


class Wants:
    """Of the lanes that this process serves. Used by one thread, the supplier's."""

    def __init__(self, supply: Supply, claimer: Claimer) -> None:
        self._in_flight, self._claimer = supply.in_flight, claimer
        self._types = {t.name: t for t in supply.catalog if t.queue in supply.queues}
        self.lanes = [Lane(t.queue, t.name) for t in self._types.values()]
        self._turn = 0

    @property
    def types(self) -> list[str]:
        return list(self._types)

    def lanes_of(self, hints: Sequence[Hint]) -> set[Lane]:
        return {Lane(hint.queue, hint.type) for hint in hints if hint.type in self._types}

    def has_room(self, hint: Hint) -> bool:
        """Whether one more job of its type may be claimed."""
        event_type = self._types.get(hint.type)
        return event_type is not None and self._in_flight.capacity.room(event_type) > 0

    def now(self, lanes: Iterable[Lane]) -> dict[Lane, int]:
        """How many of each of these lanes to claim now, where that pays."""
        capacity, since = self._in_flight.capacity, time.monotonic() - self._claimer.last_claim
        pays = {
            kind: capacity.is_worth_a_claim(is_async=kind, since_claim_seconds=since)
            for kind in (True, False)
        }
        return self._allotted([w for w in lanes if pays[self._types[w.type].is_async]])

    def beside(self, waiting: set[Lane]) -> dict[Lane, int]:
        """How many of each lane of which nothing is known. Where there are many lanes, none: a look
        without wants tells which have something."""
        if len(self.lanes) > _FEW_LANES:
            return {}
        return self._allotted([lane for lane in self.lanes if lane not in waiting])

    def _allotted(self, lanes: Sequence[Lane]) -> dict[Lane, int]:
        """What the lanes get, from another one on each time."""
        if not lanes:
            return {}
        self._turn += 1
        ordered = sorted(lanes)
        start = self._turn % len(ordered)
        ordered = ordered[start:] + ordered[:start]
        allotted = self._in_flight.capacity.allot([self._types[lane.type] for lane in ordered])
        return {lane: allotted[lane.type] for lane in ordered if allotted[lane.type] > 0}

    def wake_for(self, lanes: Iterable[Lane]) -> None:
        """Has the supplier woken once there is room for these lanes that is worth a claim."""
        capacity = self._in_flight.capacity
        kinds = {self._types[lane.type].is_async for lane in lanes}
        marks: dict[str, Any] = {"written": capacity.waits_for_writes}
        if True in kinds:
            marks["places"] = capacity.worth_of_places()
        if False in kinds:
            marks["ready"] = capacity.worth_of_ready()
        self._in_flight.watermarks.set(**marks)

    def pays_in_seconds(self, lanes: Iterable[Lane]) -> float:
        """After how long a claim for these lanes pays even if no more places become free."""
        capacity = self._in_flight.capacity
        if capacity.free_places and any(self._types[lane.type].is_async for lane in lanes):
            return capacity.claim_pause_seconds
        return float("inf")
