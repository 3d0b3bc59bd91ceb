"""A long backlog, and everything that comes back at once."""

from __future__ import annotations

import time

from tests.factories import hints_in
from tests.faults.stack import Stack
from tests.faults.waiting import eventually

WINDOW = 50


def test_redis_holds_no_more_than_its_window_and_a_long_backlog_completes(stack: Stack) -> None:
    with stack.only_workers(1, REDIS_WINDOW_MESSAGES=str(WINDOW), ASYNC_CONCURRENCY="20") as [
        worker
    ]:
        worker.freeze()
        with stack.web(REDIS_WINDOW_MESSAGES=str(WINDOW)) as web:
            api = stack.api_of(web)
            events = api.post_many([{"type": "journal.async"}] * 400)
            eventually(lambda: len(hints_in(stack.redis_client)) >= WINDOW - 1)
            assert len(hints_in(stack.redis_client)) <= 2 * WINDOW
        worker.thaw()
        done = {"status": "completed", "attempts": 1}
        eventually(
            lambda: stack.database["jobs"].count_documents(done) == len(events),
            "the backlog is done",
            within=30,
        )
    effects = [e.event for e in stack.journal.effects() if e.what == "start"]
    assert len([e for e in effects if e in set(events)]) == len(events)


def test_after_an_outage_of_all_workers_what_has_waited_runs_once_each(stack: Stack) -> None:
    for worker in stack.workers:
        worker.wanted = False
        worker.kill()
    events = stack.api.post_many([{"type": "journal.async", "payload": {"duration_ms": 20}}] * 300)
    stack.redis_client.flushall()
    for worker in stack.workers:
        worker.wanted = True
    back = time.monotonic()
    for event in events:
        seen = stack.api.wait_final(event, within=20)
        assert (seen["status"], seen["attempts"]) == ("completed", 1)
    assert time.monotonic() - back < 25
    starts = [e for e in stack.journal.effects() if e.what == "start" and e.event in set(events)]
    assert len(starts) == len(events)
