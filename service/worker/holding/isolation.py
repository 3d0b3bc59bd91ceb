"""Suspects: jobs that a process died with, left alone for the first moments of their run."""

from __future__ import annotations

import time

from service.worker.holding.job import InFlightJob

_ALONE_SECONDS = 5.0
_ALONE_MOST_SECONDS = 600.0


class Isolation:
    """Counts under the lock of `InFlight`; answers without it."""

    def __init__(self) -> None:
        self._suspects: set[InFlightJob] = set()

    def enter(self, job: InFlightJob) -> None:
        """Counts from now, if it is a suspect."""
        if job.job.company is not None:
            job.alone_until = time.monotonic() + _alone_seconds(job.job.deaths)
            self._suspects.add(job)

    def leave(self, job: InFlightJob) -> None:
        self._suspects.discard(job)

    def seconds_left(self) -> float:
        """How long nothing else should be claimed."""
        if not self._suspects:
            return 0.0
        last = max((job.alone_until for job in self._suspects.copy()), default=0.0)
        return max(0.0, last - time.monotonic())


def _alone_seconds(deaths: int) -> float:
    """Longer with each death, so that also what kills slowly is found, and never so long that one
    slow job blocks its process for good."""
    return min(_ALONE_MOST_SECONDS, float(_ALONE_SECONDS * 4 ** min(deaths - 1, 10)))
