"""APScheduler: when things happen. No logic of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

_log = logging.getLogger(__name__)


def schedule(jobs: dict[str, tuple[float, Callable[[], None]]]) -> BackgroundScheduler:
    """Starts a scheduler that calls each function every so many seconds, each on a thread of its
    own, so that none waits behind another; a call that is still under way is not doubled."""
    scheduler = BackgroundScheduler(
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
            next_run_time=datetime.now(UTC),
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
