"""APScheduler: when things happen. No logic of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

_log = logging.getLogger(__name__)
_CLOCK_WAS_SET_SECONDS = 1.0
_APART_SECONDS = 0.07


def _offset() -> float:
    """The host's clock less the monotonic one, in seconds."""
    return time.time() - time.monotonic()


class SteadyScheduler(BackgroundScheduler):  # type: ignore[misc]
    """Goes on when the host's clock is set. APScheduler keeps wall-clock times: after a step back
    by an hour it would call nothing, so no heartbeat either, for an hour."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._offset_seconds = _offset()

    def _process_jobs(self) -> Any:
        step_seconds = _offset() - self._offset_seconds
        if abs(step_seconds) > _CLOCK_WAS_SET_SECONDS:
            self._offset_seconds += step_seconds
            for job in self.get_jobs():
                job.modify(next_run_time=job.next_run_time + timedelta(seconds=step_seconds))
        wait_seconds = super()._process_jobs()
        return None if wait_seconds is None else min(wait_seconds, _CLOCK_WAS_SET_SECONDS)


def schedule(jobs: dict[str, tuple[float, Callable[[], None]]]) -> BackgroundScheduler:
    """Starts a scheduler that calls each function every so many seconds, each on a thread of its
    own, so that none waits behind another; a call that is still under way is not doubled.

    The first at once and each a little after the one before it: all at the same moment, once a
    second, they would hold up whatever job comes just then.
    """
    scheduler = SteadyScheduler(
        executors={name: ThreadPoolExecutor(1) for name in ("default", *jobs)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone="UTC",
    )
    start = datetime.fromtimestamp(time.time(), UTC)
    for position, (name, (seconds, function)) in enumerate(jobs.items()):
        scheduler.add_job(
            _logged(name, function),
            "interval",
            seconds=seconds,
            id=name,
            executor=name,
            next_run_time=start + timedelta(seconds=position * _APART_SECONDS),
        )
    scheduler.start()
    return scheduler


def _logged(name: str, function: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        try:
            function()
        except Exception as error:
            _log.warning("%s failed and is tried again: %s", name, error)

    return call
