"""Every event that is posted ends as its payload foretells, and everything that counts agrees."""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from tests.faults.processes import send
from tests.faults.stack import Stack
from tests.faults.waiting import eventually

pytestmark = [pytest.mark.e2e]
_EVENTS = 1_000
_ATTEMPTS = 3


def test_an_event_is_accepted_runs_and_is_found_completed(system: Stack) -> None:
    event = system.api.post("simulate", {"duration_ms": 50, "result": {"hello": "world"}})
    seen = system.api.wait_final(event)
    assert (seen["status"], seen["result"], seen["attempts"]) == (
        "completed",
        {"hello": "world"},
        1,
    )
    [entry] = seen["history"]
    assert entry["outcome"] == "completed"
    assert seen["created_at"] <= entry["started_at"] <= entry["finished_at"]


@pytest.mark.timeout(120)
def test_a_thousand_random_events_end_as_their_payloads_foretell(system: Stack) -> None:
    rng = random.Random(20261124)
    before = system.api.metrics()
    payloads = [_random_payload(rng) for _ in range(_EVENTS)]
    events = system.api.post_many(
        [{"type": "simulate", "payload": p, "max_attempts": _ATTEMPTS} for p in payloads]
    )
    system.wait_idle(within=60)
    wrong = [
        (payload, seen)
        for payload, event in zip(payloads, events, strict=True)
        if not _as_foretold(payload, seen := system.api.get(event))
    ]
    assert wrong == []
    _check_totals(system, events, before)


def _random_payload(rng: random.Random) -> dict[str, Any]:
    payload: dict[str, Any] = {"duration_ms": rng.randint(0, 300), "result": rng.random()}
    match rng.randrange(10):
        case 0 | 1:
            payload["fail_times"] = rng.randint(1, _ATTEMPTS + 1)
        case 2:
            payload["outcome"] = "error"
        case 3:
            payload["outcome"] = "reject"
    return payload


def _as_foretold(payload: dict[str, Any], seen: dict[str, Any]) -> bool:
    failures = payload.get("fail_times", 0)
    outcome = payload.get("outcome", "success")
    if outcome == "reject":
        expected = ("failed", 1, ["rejected"], "rejected")
    elif outcome == "error" or failures >= _ATTEMPTS:
        expected = ("failed", _ATTEMPTS, ["error"] * _ATTEMPTS, "error")
    else:
        expected = ("completed", failures + 1, ["error"] * failures + ["completed"], None)
    history = [entry["outcome"] for entry in seen["history"]]
    reason = (seen["error"] or {}).get("reason")
    return expected == (seen["status"], seen["attempts"], history, reason) and (
        seen["status"] == "failed" or seen["result"] == payload["result"]
    )


def _check_totals(system: Stack, events: list[str], before: dict[str, Any]) -> None:
    """`/metrics` counts what MongoDB holds."""
    documents = list(system.database["jobs"].find({"_id": {"$in": events}}))
    statuses = Counter(d["status"] for d in documents)
    held = {
        "received": len(events),
        "completed": statuses["completed"],
        "failed": statuses["failed"],
        "cancelled": 0,
        "retried": sum(d["attempts"] - 1 for d in documents),
    }

    def counted() -> bool:
        now = system.api.metrics()
        return {name: now[name] - before[name] for name in held} == held

    eventually(counted, f"/metrics counts {held}", within=10)


@pytest.mark.timeout(90)
def test_all_jobs_of_a_worker_that_is_killed_complete_once(system: Stack) -> None:
    events = system.api.post_many(
        [{"type": "simulate", "payload": {"duration_ms": 20 * (i % 50)}} for i in range(200)]
    )
    holder = eventually(lambda: next(filter(None, map(system.holder, events)), None))
    send(holder, signal.SIGKILL)
    system.wait_idle(within=60)
    for event in events:
        outcomes = [entry["outcome"] for entry in system.api.get(event)["history"]]
        assert outcomes.count("completed") == 1, outcomes


@pytest.mark.timeout(90)
def test_redis_may_be_away_while_events_are_posted(system: Stack) -> None:
    system.redis.stop()
    try:
        answers = [system.api.try_post("simulate").status_code for _ in range(200)]
    finally:
        system.redis.start()
    assert answers == [202] * 200
    system.wait_idle(within=30)
    assert (
        system.database["jobs"].count_documents({"status": "failed", "error.reason": "crash"}) == 0
    )


def test_a_handler_that_waits_holds_no_thread(system: Stack) -> None:
    """300 jobs of a second, where a worker process has 8 threads."""
    events = system.api.post_many(
        [{"type": "simulate", "payload": {"duration_ms": 1_000}} for _ in range(300)]
    )
    system.wait_idle(within=30)
    runs = [system.document(event)["history"][0] for event in events]
    first: datetime = min(run["started_at"] for run in runs)
    overlapping = sum((run["started_at"] - first).total_seconds() < 1.0 for run in runs)
    assert overlapping > 8


def test_an_idle_worker_starts_an_event_at_once(system: Stack) -> None:
    """Plain Dramatiq's idle polling costs half a second in the mean."""
    waits = []
    for _ in range(10):
        posted = time.monotonic()
        event = system.api.post("journal.async")
        eventually(lambda e=event: system.journal.starts(e), every=0.005)
        waits.append(system.journal.starts(event)[0].at - posted)
        system.api.wait_final(event)
    assert statistics.median(waits) < 0.1
