"""When the beats of a worker process come."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from service.worker.fleet import heartbeat
from tests.faults.waiting import eventually

pytestmark = pytest.mark.timeout(30)


def test_beats_do_not_come_all_at_once() -> None:
    scheduler = heartbeat.schedule({name: (60.0, lambda: None) for name in "abcd"})
    try:
        times = sorted(job.next_run_time for job in scheduler.get_jobs())
    finally:
        scheduler.shutdown(wait=False)
    assert len(set(times)) == 4


def test_beats_go_on_after_the_clock_was_set_back() -> None:
    beats: list[float] = []
    scheduler = heartbeat.schedule({"beat": (0.1, lambda: beats.append(time.monotonic()))})
    try:
        eventually(lambda: len(beats) >= 3, "it beats", within=10)
        scheduler._offset_seconds += 3_600  # as if the clock had been an hour ahead till now
        for job in scheduler.get_jobs():
            job.modify(next_run_time=job.next_run_time + timedelta(hours=1))
        before = len(beats)
        eventually(lambda: len(beats) >= before + 3, "it beats again", within=10)
    finally:
        scheduler.shutdown(wait=False)
