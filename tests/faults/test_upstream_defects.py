"""Defects of plain Dramatiq 2.2 that would break a promise are absent here, by real processes.

tests/contract/test_upstream.py shows each of them on plain Dramatiq, and tells when a release has
mended it. Not shown at all, since plain Dramatiq takes minutes to show it: messages of a killed
worker wait for its maintenance by chance (here: `test_worker_faults`), and a message that kills its
process is redelivered for ever (here: `test_hostile_jobs`).
"""

from __future__ import annotations

import statistics
import time

from tests.faults.stack import Stack
from tests.faults.waiting import eventually


def test_a_retry_while_redis_is_away_is_not_lost_here(stack: Stack) -> None:
    event = stack.api.post("journal.sync", {"duration_ms": 400, "fail_times": 2})
    stack.wait_held(event)
    stack.redis_proxy.refuse()
    seen = stack.api.wait_final(event)
    assert [e["outcome"] for e in seen["history"]] == ["error", "error", "completed"]


def test_a_time_limit_that_strikes_as_a_run_fails_loses_nothing_here(stack: Stack) -> None:
    payload = {"duration_ms": 300, "fail_times": 1}
    events = [
        stack.api.post("journal.sync", dict(payload), time_limit_ms=300 + 4 * n, max_attempts=2)
        for n in range(25)
    ]
    for event in events:
        seen = stack.api.wait_final(event, within=20)
        assert len(seen["history"]) == seen["attempts"] == 2, seen
    after = [stack.api.post("journal.sync", {"duration_ms": 100}) for _ in range(16)]
    for event in after:
        assert stack.api.wait_final(event)["status"] == "completed"


def test_a_dead_letter_that_cant_be_sent_arrives_later_here(stack: Stack) -> None:
    event = stack.api.post("journal.sync", {"reject": True, "duration_ms": 300})
    stack.wait_held(event)
    stack.redis_proxy.refuse()
    assert stack.api.wait_final(event)["error"]["reason"] == "rejected"
    assert "dead_lettered_at" not in stack.document(event)
    stack.redis_proxy.flow()
    eventually(lambda: "dead_lettered_at" in stack.document(event), "it arrives", within=12)


def test_a_delayed_event_runs_in_time_though_redis_died_here(stack: Stack) -> None:
    event = stack.api.post("journal.sync", delay_ms=2_000)
    posted = time.monotonic()
    stack.redis.kill()
    stack.redis.start()
    stack.api.wait_final(event)
    assert 1.9 < time.monotonic() - posted < 5


def test_an_idle_worker_starts_an_event_at_once_here(stack: Stack) -> None:
    """Plain Dramatiq's idle polling costs half a second in the mean."""
    waits = []
    for _ in range(10):
        posted = time.monotonic()
        event = stack.api.post("journal.async")
        eventually(lambda e=event: stack.journal.starts(e), every=0.005)
        waits.append(stack.journal.starts(event)[0].at - posted)
        stack.api.wait_final(event)
    assert statistics.median(waits) < 0.1
