"""Writes what handlers say of their progress."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from service.concurrency.delay_queue import DelayQueue
from service.errors import InvalidEvent, StoreUnavailable
from service.store.held import HeldJobs
from service.worker.holding.job import InFlightJob

_log = logging.getLogger(__name__)


class ProgressWriter:
    """On a thread of its own; of several notes for one job, the latest."""

    def __init__(self, held_jobs: HeldJobs) -> None:
        self._held_jobs = held_jobs
        self._notes: DelayQueue[tuple[InFlightJob, Any]] = DelayQueue(self._write)

    def put(self, job: InFlightJob, value: Any) -> None:
        """Returns at once: the handler may be on the event loop."""
        self._notes.add((job, value), 0.0)

    def _write(self, notes: Sequence[tuple[InFlightJob, Any]]) -> None:
        latest = {job.job.id: (job, value) for job, value in notes}
        for job, value in latest.values():
            try:
                self._held_jobs.progress(job.job, value)
            except (StoreUnavailable, InvalidEvent) as error:
                _log.warning("a job's progress is not shown: %s", error)
