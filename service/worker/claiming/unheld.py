"""Jobs that MongoDB says this worker holds and that it doesn't: the reply to their claim was lost.

A claim of many is one update that the driver must not send twice, and a server that hung may carry
it out long after the caller gave up. No rescue would ever come for such jobs: their worker lives.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from service.job import AttemptResult, Hint, JobStatus, Outcome, transition_after
from service.worker.claiming.supply import Supply
from service.worker.finishing.finisher import finish

_log = logging.getLogger(__name__)
_CLAIM_WAIT_SECONDS = 0.5


def release_unheld(supply: Supply) -> list[Hint]:
    """Gives them back, which costs no attempt; hints for those that now wait again.

    What seems to be such a job is looked at once more while no claim is under way; where one takes
    too long, the next call will do.
    """
    claims = supply.store.held.claims_of(supply.worker_id)  # may take long: no claim waits for it
    if not _unheld(supply, claims) or not supply.claiming.acquire(timeout=_CLAIM_WAIT_SECONDS):
        return []
    try:
        jobs = supply.store.held.held_by(supply.worker_id, _unheld(supply, claims))
    finally:
        supply.claiming.release()
    jobs = [job for job in jobs if job.claim == claims[job.id]]
    if not jobs:
        return []
    _log.warning("%d jobs whose claim got lost are given back", len(jobs))
    attempt_result = AttemptResult(Outcome.UNSTARTED, supply.clock.now())
    batch = [(job, transition_after(job, attempt_result, 0)) for job in jobs]
    given_back = finish(supply.store, supply.counters, batch)
    return [job.hint for job, transition in given_back if transition.status is JobStatus.PENDING]


def _unheld(supply: Supply, claims: Mapping[str, str]) -> list[str]:
    return [job_id for job_id, claim in claims.items() if not supply.in_flight.holds(job_id, claim)]
