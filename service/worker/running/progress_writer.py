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

    def put(self, held: InFlightJob, value: Any) -> None:
        """Returns at once: the handler may be on the event loop."""
        self._notes.add((held, value), 0.0)

    def _write(self, notes: Sequence[tuple[InFlightJob, Any]]) -> None:
        latest = {held.job.id: (held, value) for held, value in notes}
        for held, value in latest.values():
            try:
                self._held_jobs.progress(held.job, value)
            except (StoreUnavailable, InvalidEvent) as error:
                _log.warning("a job's progress is not shown: %s", error)
