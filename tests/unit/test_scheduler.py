"""When the beats of a worker process come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from service.errors import StoreUnavailable
from service.worker.fleet import scheduler
from service.worker.fleet.scheduler import Beat
from tests.factories import eventually

pytestmark = pytest.mark.timeout(30)


@contextmanager
def running(*beats: Beat) -> Iterator[Any]:
    """The scheduler that runs them."""
    it = scheduler.schedule(beats)
    try:
        yield it
    finally:
        it.shutdown(wait=False)


def test_beats_do_not_come_all_at_once() -> None:
    with running(*(Beat(name, 60.0, lambda: None) for name in "abcd")) as it:
        times = sorted(job.next_run_time for job in it.get_jobs())
    assert len(set(times)) == 4


def test_beats_go_on_after_the_clock_was_set_back() -> None:
    beats: list[float] = []
    with running(Beat("beat", 0.1, lambda: beats.append(time.monotonic()))) as it:
        eventually(lambda: len(beats) >= 3, within=10)
        it._offset_seconds += 3_600  # as if the clock had been an hour ahead till now
        for job in it.get_jobs():
            job.modify(next_run_time=job.next_run_time + timedelta(hours=1))
        before = len(beats)
        eventually(lambda: len(beats) >= before + 3, within=10)


def test_a_beat_that_fails_is_told_comes_again_and_leaves_the_others_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed: list[int] = []
    others: list[int] = []

    def fail() -> None:
        failed.append(1)
        raise StoreUnavailable("no answer")

    with running(Beat("broken", 0.05, fail), Beat("other", 0.05, lambda: others.append(1))):
        eventually(lambda: len(failed) >= 3 and len(others) >= 3, within=10)
    assert "broken failed and is tried again: no answer" in caplog.text


def test_a_beat_that_hangs_holds_up_no_other() -> None:
    hanging, go_on = threading.Event(), threading.Event()
    others: list[bool] = []

    def hang() -> None:
        hanging.set()
        go_on.wait(20)

    note = Beat("other", 0.05, lambda: others.append(hanging.is_set()))
    with running(Beat("slow", 0.05, hang), note):
        eventually(lambda: others.count(True) >= 3, within=10)
        go_on.set()


def test_a_beat_comes_only_when_its_condition_agrees() -> None:
    turns: list[str] = []
    agreed: list[bool] = []
    note = Beat("always", 0.05, lambda: turns.append("always"))
    with running(Beat("wanted", 0.05, lambda: turns.append("wanted"), lambda: bool(agreed)), note):
        eventually(lambda: turns.count("always") >= 3, within=10)
        assert "wanted" not in turns
        agreed.append(True)
        eventually(lambda: turns.count("wanted") >= 2, within=10)
