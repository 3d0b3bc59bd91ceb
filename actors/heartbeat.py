"""APScheduler: when things happen. No logic of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

_log = logging.getLogger(__name__)
_CLOCK_WAS_SET_SECONDS = 1.0


class SteadyScheduler(BackgroundScheduler):  # type: ignore[misc]
    """Goes on when the host's clock is set. APScheduler keeps wall-clock times: after a step back
    by an hour it would call nothing, so no heartbeat either, for an hour."""

    _offset_seconds = 0.0

    def _process_jobs(self) -> Any:
        offset_seconds = time.time() - time.monotonic()
        if abs(offset_seconds - self._offset_seconds) > _CLOCK_WAS_SET_SECONDS:
            self._offset_seconds = offset_seconds
            for job in self.get_jobs():
                job.modify(next_run_time=_now())
        wait_seconds = super()._process_jobs()
        return None if wait_seconds is None else min(wait_seconds, _CLOCK_WAS_SET_SECONDS)


def schedule(jobs: dict[str, tuple[float, Callable[[], None]]]) -> BackgroundScheduler:
    """Starts a scheduler that calls each function every so many seconds, each on a thread of its
    own, so that none waits behind another; a call that is still under way is not doubled."""
    scheduler = SteadyScheduler(
        executors={name: ThreadPoolExecutor(1) for name in ("default", *jobs)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone="UTC",
    )
    for name, (seconds, function) in jobs.items():
        scheduler.add_job(
            _logged(name, function),
            "interval",
            seconds=seconds,
            id=name,
            executor=name,
            next_run_time=_now(),
        )
    scheduler.start()
    return scheduler


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _logged(name: str, function: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        try:
            function()
        except Exception as error:
            _log.warning("%s failed and is tried again: %s", name, error)

    return call
