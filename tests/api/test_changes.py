"""Cancel, retry, and both by filter."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from pymongo.collection import Collection
from pymongo.database import Database

from service.job import Outcome
from service.store import JobStore
from tests.api.server import EVENT, Web
from tests.factories import accept, ago, claim, claimed, eventually, failed, finish, hints_in


def test_a_pending_event_is_cancelled_at_once(web: Web, database: Database[Any]) -> None:
    event_id = web.post({**EVENT, "delay_ms": 60_000}).json()["id"]
    answer = web.http.post(f"/events/{event_id}/cancel")
    assert answer.status_code == 200
    event = answer.json()
    assert (event["status"], event["next_attempt_at"]) == ("cancelled", None)
    assert event["finished_at"] is not None
    assert web.get(event_id).json() == event


def test_a_cancel_is_counted_once(web: Web, counters: Collection[Any]) -> None:
    event_id = web.post().json()["id"]
    for _ in range(2):
        assert web.http.post(f"/events/{event_id}/cancel").status_code == 200

    def cancelled() -> bool:
        counted = counters.find_one({"_id": "simulate"})
        return counted is not None and counted.get("cancelled") == 1

    assert eventually(cancelled)


def test_a_processing_event_is_asked_to_stop(web: Web, jobs: JobStore) -> None:
    job = claimed(jobs)
    answer = web.http.post(f"/events/{job.id}/cancel", json={})
    assert answer.status_code == 202
    assert answer.json()["status"] == "processing"
    assert answer.headers["Retry-After"] == "1"
    assert jobs.held.cancel_requests("worker-1", [job.id]) == [job.id]


def test_what_has_ended_otherwise_is_not_cancelled(web: Web, jobs: JobStore) -> None:
    job = claimed(jobs)
    finish(jobs, job)
    answer = web.http.post(f"/events/{job.id}/cancel")
    assert answer.status_code == 409
    assert "completed" in answer.json()["detail"]


def test_a_failed_event_is_retried_with_a_fresh_budget(
    web: Web, jobs: JobStore, hints: redis.Redis
) -> None:
    event = failed(jobs, max_attempts=3)
    answer = web.http.post(f"/events/{event['_id']}/retry")
    assert answer.status_code == 202
    shown = answer.json()
    assert (shown["status"], shown["attempts"], shown["max_attempts"]) == ("pending", 1, 6)
    assert (shown["error"], shown["finished_at"]) == (None, None)
    assert len(shown["history"]) == 1
    assert [hint.job_id for hint in eventually(lambda: hints_in(hints))] == [event["_id"]]


def test_what_is_open_or_completed_is_not_retried(web: Web, jobs: JobStore) -> None:
    pending = accept(jobs)["_id"]
    processing = claimed(jobs)
    done = claimed(jobs)
    finish(jobs, done)
    for event_id in (pending, processing.id, done.id):
        assert web.http.post(f"/events/{event_id}/retry").status_code == 409


def test_a_cancelled_event_can_be_retried(web: Web) -> None:
    event_id = web.post({**EVENT, "delay_ms": 60_000}).json()["id"]
    web.http.post(f"/events/{event_id}/cancel")
    assert web.http.post(f"/events/{event_id}/retry").json()["status"] == "pending"


def test_a_dry_run_only_counts(web: Web, jobs: JobStore) -> None:
    for _ in range(3):
        failed(jobs)
    body = {"status": "failed", "dry_run": True}
    assert web.http.post("/events/retry", json=body).json() == {"matched": 3, "retried": 0}
    assert web.http.post("/events/retry?status=failed&dry_run=true", content=b"").json() == {
        "matched": 3,
        "retried": 0,
    }


def test_all_that_match_are_retried(web: Web, jobs: JobStore, hints: redis.Redis) -> None:
    wanted = [failed(jobs, type="a")["_id"] for _ in range(3)]
    other = failed(jobs, type="b")["_id"]
    open_job = claimed(jobs, type="a")
    answer = web.http.post("/events/retry", json={"type": "a"})
    assert answer.json() == {"matched": 3, "retried": 3}
    assert {web.get(event_id).json()["status"] for event_id in wanted} == {"pending"}
    assert web.get(other).json()["status"] == "failed"
    assert web.get(open_job.id).json()["status"] == "processing"
    assert eventually(lambda: {h.job_id for h in hints_in(hints)} == set(wanted))


def test_retries_are_bounded_by_time(web: Web, jobs: JobStore) -> None:
    old, new = failed(jobs, at=ago(7_200)), failed(jobs, at=ago(60))
    since = ago(3_600).isoformat().replace("+00:00", "Z")
    answer = web.http.post("/events/retry", json={"created_after": since})
    assert answer.json() == {"matched": 1, "retried": 1}
    assert web.get(old["_id"]).json()["status"] == "failed"
    assert web.get(new["_id"]).json()["status"] == "pending"


def test_more_than_a_chunk_is_retried(web: Web, jobs: JobStore) -> None:
    documents = [accept(jobs) for _ in range(3)]
    for document in documents:
        job = claim(jobs, document["_id"])
        finish(jobs, job, Outcome.REJECTED, message="no")
    assert web.http.post("/events/retry?status=failed", content=b"").json()["retried"] == 3


def test_retries_at_the_same_moment_count_each_event_once(
    web: Web, jobs: JobStore, hints: redis.Redis
) -> None:
    wanted = {failed(jobs)["_id"] for _ in range(16)}

    def retry(_: int) -> dict[str, int]:
        answer = web.http.post("/events/retry", json={"status": "failed"})
        assert answer.status_code == 200
        return dict(answer.json())

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(retry, range(4)))
    assert sum(answer["retried"] for answer in answers) == 16
    assert all(answer["retried"] <= answer["matched"] for answer in answers)
    assert {web.get(event_id).json()["status"] for event_id in wanted} == {"pending"}
    assert sorted(h.job_id for h in eventually(lambda: hints_in(hints))) == sorted(wanted)


# cancel by filter


def test_a_dry_run_of_a_cancellation_only_counts(web: Web, jobs: JobStore) -> None:
    waiting, running = accept(jobs)["_id"], claimed(jobs)
    failed(jobs)
    expected = {"matched": 2, "cancelled": 0, "asked": 0}
    body = {"type": "email", "dry_run": True}
    assert web.http.post("/events/cancel", json=body).json() == expected
    ask = "/events/cancel?type=email&dry_run=true"
    assert web.http.post(ask, content=b"").json() == expected
    assert web.get(waiting).json()["status"] == "pending"
    assert jobs.held.cancel_requests("worker-1", [running.id]) == []


def test_all_that_match_are_cancelled_or_asked_to_stop(web: Web, jobs: JobStore) -> None:
    waiting = [accept(jobs, type="a")["_id"] for _ in range(3)]
    running = claimed(jobs, type="a")
    other, ended = accept(jobs, type="b")["_id"], failed(jobs, type="a")["_id"]
    answer = web.http.post("/events/cancel", json={"type": "a"})
    assert answer.status_code == 200
    assert answer.json() == {"matched": 4, "cancelled": 3, "asked": 1}
    for event_id in waiting:
        event = web.get(event_id).json()
        assert (event["status"], event["next_attempt_at"]) == ("cancelled", None)
        assert event["created_at"] <= event["finished_at"] == event["updated_at"]
    assert jobs.held.cancel_requests("worker-1", [running.id]) == [running.id]
    assert web.get(other).json()["status"] == "pending"
    assert web.get(ended).json()["status"] == "failed"
    again = web.http.post("/events/cancel", json={"type": "a"})
    assert again.json() == {"matched": 0, "cancelled": 0, "asked": 0}


def test_only_one_status_is_cancelled_where_it_is_named(web: Web, jobs: JobStore) -> None:
    accept(jobs)
    running = claimed(jobs)
    answer = web.http.post("/events/cancel?status=processing", content=b"")
    assert answer.json() == {"matched": 1, "cancelled": 0, "asked": 1}
    assert jobs.held.cancel_requests("worker-1", [running.id]) == [running.id]
    answer = web.http.post("/events/cancel", json={"status": "pending"})
    assert answer.json() == {"matched": 1, "cancelled": 1, "asked": 0}


def test_a_cancellation_by_filter_is_counted_once_by_type(
    web: Web, jobs: JobStore, counters: Collection[Any]
) -> None:
    for event_type, count in (("a", 3), ("b", 2)):
        for _ in range(count):
            accept(jobs, type=event_type)
    claimed(jobs, type="a")
    for _ in range(2):
        web.http.post("/events/cancel", json={"created_after": "2020-01-01T00:00:00Z"})

    def cancelled() -> dict[str, int]:
        return {d["_id"]: d["cancelled"] for d in counters.find({"cancelled": {"$gt": 0}})}

    assert eventually(lambda: cancelled() == {"a": 3, "b": 2})


def test_who_waits_for_an_event_is_told_that_it_was_cancelled_with_others(web: Web) -> None:
    event_id = web.post({**EVENT, "delay_ms": 60_000}).json()["id"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(web.get, event_id, Prefer="wait=20")
        eventually(waiting.running)
        began = time.monotonic()
        web.http.post("/events/cancel", json={"type": "simulate"})
        assert waiting.result().json()["status"] == "cancelled"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "ask",
    [
        *("status=failed", "status=", "type=", "group=a", "type=a&group=", "type=a&group=%C3%A4"),
        *("dry_run=1", "limit=5", "created_after=now", "status=pending&status=processing"),
    ],
)
def test_a_filter_that_does_not_fit_cancels_nothing(web: Web, jobs: JobStore, ask: str) -> None:
    event_id = accept(jobs)["_id"]
    assert web.http.post(f"/events/cancel?{ask}", content=b"").status_code == 400
    assert web.get(event_id).json()["status"] == "pending"
