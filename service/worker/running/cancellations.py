"""Which of the jobs that this process runs a client wants to stop."""

from __future__ import annotations

from service.store.held import HeldJobs
from service.worker.holding.in_flight import InFlight

_SHORT_SECONDS = 0.25
"""Jobs that are held for less needn't be asked about."""


class Cancellations:
    """Handlers see it by `context.is_cancelled()`."""

    def __init__(self, held_jobs: HeldJobs, in_flight: InFlight, worker_id: str) -> None:
        self._held_jobs, self._in_flight, self._worker_id = held_jobs, in_flight, worker_id

    def are_possible(self) -> bool:
        return len(self._in_flight) > 0

    def look(self) -> None:
        """Asks MongoDB only where a job is held for long. Raises `StoreUnavailable`."""
        jobs = self._in_flight.held_longer_than(_SHORT_SECONDS)
        if not jobs:
            return
        ids = [job.job.id for job in jobs]
        asked = set(self._held_jobs.cancel_requests(self._worker_id, ids))
        for job in jobs:
            job.cancelled = job.cancelled or job.job.id in asked
