"""The beats of a worker process: what happens every so many seconds (APScheduler)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

_log = logging.getLogger(__name__)
_CLOCK_WAS_SET_SECONDS = 1.0
_APART_SECONDS = 0.07


def _offset() -> float:
    """The host's clock less the monotonic one, in seconds."""
    return time.time() - time.monotonic()


class Beat(NamedTuple):
    """`function` is called every so many seconds, at the times at which `when` (if given) agrees.
    `when` only looks at what this process knows: it must neither wait nor fail.

    What `function` raises is logged; its own next turn comes, and so do the turns of all others.
    """

    name: str
    seconds: float
    function: Callable[[], object]
    when: Callable[[], bool] | None = None

    @property
    def is_wanted(self) -> bool:
        return self.when is None or self.when()

    def run(self) -> None:
        """One turn."""
        try:
            self.function()
        except Exception as error:
            _log.warning("%s failed and is tried again: %s", self.name, error)


class OwnThread(ThreadPoolExecutor):  # type: ignore[misc]
    """The thread of one beat, which isn't even woken for a turn that isn't wanted."""

    def __init__(self, beat: Beat) -> None:
        super().__init__(1)
        self._beat = beat

    def submit_job(self, job: Any, run_times: Any) -> None:
        if self._beat.is_wanted:
            super().submit_job(job, run_times)


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


def schedule(beats: Iterable[Beat]) -> BackgroundScheduler:
    """Starts a scheduler that runs each beat on a thread of its own, so that none waits behind
    another; a turn that is still under way is not doubled.

    The first comes at once and each a little after the one before it: all at the same moment, once
    a second, they would hold up whatever job comes just then.
    """
    beats = list(beats)
    scheduler = SteadyScheduler(
        executors={beat.name: OwnThread(beat) for beat in beats},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone="UTC",
    )
    start = datetime.fromtimestamp(time.time(), UTC)
    for position, beat in enumerate(beats):
        scheduler.add_job(
            beat.run,
            "interval",
            seconds=beat.seconds,
            id=beat.name,
            executor=beat.name,
            next_run_time=start + timedelta(seconds=position * _APART_SECONDS),
        )
    scheduler.start()
    return scheduler
