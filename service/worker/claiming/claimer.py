"""The only way to a job: what is claimed is held from the same moment on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from service.crash import crash_point
from service.errors import StoreUnavailable
from service.job import AttemptResult, Hint, Job, Outcome, transition_after
from service.worker.claiming.supply import Supply
from service.worker.finishing.finisher import finish
from service.worker.holding.job import InFlightJob

_QUIET_SECONDS = 5.0

HandOver = Callable[[Sequence[InFlightJob], Sequence[InFlightJob]], None]
"""Is given the jobs for which a thread is to be called, and all that were claimed."""


class Draining(Exception):
    """The process stops, or is taken for dead: nothing more is claimed."""


class Won(NamedTuple):
    """What a claim came to."""

    held: list[InFlightJob]
    too_large: list[Hint]
    """Claimed and given back: there is no room in memory for them now."""


class Claimer:
    """`hand_over` starts what was won."""

    def __init__(self, supply: Supply, hand_over: HandOver) -> None:
        self._supply, self._hand_over = supply, hand_over
        self.last_claim = float("-inf")
        """Monotonic time at which the last claim began."""

    def claim(self, hints: Sequence[Hint]) -> Won:
        """Claims the jobs that are hinted at. What isn't won is done with: it runs elsewhere, has
        ended, or isn't due.

        Raises `Draining`, and `StoreUnavailable` where nobody knows what was won.
        """
        supply = self._supply
        ids = list(dict.fromkeys(hint.job_id for hint in hints))

        def claim(now: datetime, most_bytes: int) -> list[Job]:
            return supply.store.claims.claim(ids, supply.worker_id, now, most_bytes=most_bytes)

        return self._claim(claim)

    def claim_suspects(self, ids: Sequence[str]) -> Won:
        """Claims jobs that were held by a process that died.

        What runs is waited for, so that it is known whom to blame if this process dies too. Jobs
        that take longer than that are not waited for: if the process dies, they are suspects
        themselves. Raises as `claim` does.
        """
        supply = self._supply
        supply.in_flight.wait_until_empty(_QUIET_SECONDS, unless=supply.draining)

        def claim(now: datetime, most_bytes: int) -> list[Job]:
            return supply.store.claims.claim_suspects(
                ids, supply.worker_id, now, most_bytes=most_bytes
            )

        return self._claim(claim)

    def _claim(self, claim: Callable[[datetime, int], list[Job]]) -> Won:
        """A process that stops looks for what it holds once more after the last claim; one that
        came later would be taken for a crash."""
        supply, capacity = self._supply, self._supply.in_flight.capacity
        with supply.claiming:
            if supply.draining.is_set() or not supply.lease.is_valid:
                raise Draining
            self.last_claim = time.monotonic()
            try:
                jobs = claim(supply.clock.now(), max(0, capacity.room_bytes))
            except StoreUnavailable:
                supply.doubt()
                raise
            crash_point("worker.after_claim")
            return self._hold(jobs)

    def _hold(self, jobs: Sequence[Job]) -> Won:
        """Holds and starts claimed jobs. Gives back the others."""
        held: list[InFlightJob] = []
        others: list[Job] = []
        for job in jobs:
            event_type = self._supply.catalog.get(job.type)
            # Too large to be held now, or its hint lied about its type.
            if job.size is None or event_type is None:
                others.append(job)
            else:
                held.append(InFlightJob(job, event_type))
        self._hand_over(self._supply.in_flight.add(held), held)
        if others:
            self._give_back(others)
        return Won(held, [job.hint for job in others if job.size is None])

    def _give_back(self, jobs: Sequence[Job]) -> None:
        unstarted = AttemptResult(Outcome.UNSTARTED, self._supply.clock.now())
        batch = [(job, transition_after(job, unstarted, 0)) for job in jobs]
        finish(self._supply.store, self._supply.counters, batch)
