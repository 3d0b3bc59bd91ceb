"""Loaded into a process through EVENT_TYPE_MODULES: its host's clock is off by as many seconds as
the file says that SKEW_FILE names, from now on and whenever that changes.

The monotonic clock stays right, as it does on a real host whose wall clock is set.
"""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Any

_right_time = time.time
_file = Path(os.environ["SKEW_FILE"])


def _skew() -> float:
    return float(_file.read_text() or 0)


def _wrong_time() -> float:
    return _right_time() + _skew()


class _WrongDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.datetime.fromtimestamp(_wrong_time(), tz)


def _skew_scheduler() -> None:
    """APScheduler reads the clock through names of its own modules."""
    import apscheduler.executors.base
    import apscheduler.schedulers.base
    import apscheduler.triggers.interval

    for module in (
        apscheduler.executors.base,
        apscheduler.schedulers.base,
        apscheduler.triggers.interval,
    ):
        module.datetime = _WrongDatetime  # type: ignore[attr-defined]


time.time = _wrong_time
_skew_scheduler()
