"""GET /events/{id} and GET /events."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from pymongo.database import Database

from service.api import times
from service.job import Outcome
from service.store import JobStore
from tests.api.server import EVENT, Web
from tests.factories import accept, claim, finish, new_job_document

FIELDS = {
    *("id", "type", "status", "payload", "priority", "attempts", "max_attempts"),
    *("created_at", "updated_at", "run_at", "started_at", "finished_at", "next_attempt_at"),
    *("result", "error", "history", "group", "schedule"),
}


# one


def test_an_event_shows_its_fields_and_no_others(web: Web) -> None:
    event = web.get(web.post().json()["id"]).json()
    assert event.keys() == FIELDS
    assert event["status"] == "pending"
    assert (event["attempts"], event["history"]) == (0, [])
    assert event["next_attempt_at"] == event["created_at"]


def test_times_are_utc_with_milliseconds(web: Web) -> None:
    event = web.get(web.post().json()["id"]).json()
    moment = datetime.strptime(event["created_at"], "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007
    assert len(event["created_at"]) == len("2030-01-31T12:00:00.000Z")
    assert abs(moment.replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(seconds=10)


def test_a_completed_event_has_its_result_and_history(web: Web, jobs: JobStore) -> None:
    job = claim(jobs, accept(jobs)["_id"], worker="worker-7")
    finish(jobs, job, Outcome.COMPLETED, result={"answer": 42})
    event = web.get(job.id).json()
    assert event["status"] == "completed"
    assert event["result"] == {"answer": 42}
    assert event["next_attempt_at"] is None
    assert event["finished_at"] is not None
    (attempt,) = event["history"]
    assert attempt.keys() == {
        *("attempt", "worker", "started_at", "finished_at", "outcome", "error")
    }
    assert (attempt["attempt"], attempt["worker"]) == (1, "worker-7")
    assert (attempt["outcome"], attempt["error"]) == ("completed", None)
    assert times.parsed(attempt["started_at"]) <= times.parsed(attempt["finished_at"])


def test_a_failed_event_is_still_a_200(web: Web, jobs: JobStore) -> None:
    job = claim(jobs, accept(jobs)["_id"])
    finish(jobs, job, Outcome.REJECTED, message="no\r\nway")
    answer = web.get(job.id)
    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"] == {"reason": "rejected", "message": "no\r\nway"}


def test_a_processing_event_has_no_next_attempt(web: Web, jobs: JobStore) -> None:
    job = claim(jobs, accept(jobs)["_id"])
    jobs.held.progress(job, {"percent": 50})
    event = web.get(job.id).json()
    assert event["status"] == "processing"
    assert event["next_attempt_at"] is None
    assert event["progress"] == {"percent": 50}


def test_an_event_that_may_change_says_when_to_look_again(web: Web, jobs: JobStore) -> None:
    job = claim(jobs, accept(jobs)["_id"])
    assert web.get(job.id).headers["Retry-After"] == "1"
    finish(jobs, job)
    assert "Retry-After" not in web.get(job.id).headers


def test_head_is_get_without_a_body(web: Web) -> None:
    path = web.post().json()["links"]["self"]
    got, head = web.http.get(path), web.http.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["Content-Length"] == str(len(got.content))
    assert head.headers["ETag"] == got.headers["ETag"]


# etag


def test_who_has_it_gets_304(web: Web) -> None:
    event_id = web.post().json()["id"]
    tag = web.get(event_id).headers["ETag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = web.get(event_id, if_none_match=given)
        assert answer.status_code == 304
        assert answer.content == b""
        assert answer.headers["ETag"] == tag
    assert web.get(event_id, if_none_match='"other"').status_code == 200


def test_every_change_changes_the_etag(web: Web, jobs: JobStore) -> None:
    job_id = accept(jobs)["_id"]
    tags = [web.get(job_id).headers["ETag"]]
    job = claim(jobs, job_id)
    tags.append(web.get(job_id).headers["ETag"])
    jobs.held.progress(job, 1)
    tags.append(web.get(job_id).headers["ETag"])
    jobs.held.progress(job, 2)
    tags.append(web.get(job_id).headers["ETag"])
    finish(jobs, job)
    tags.append(web.get(job_id).headers["ETag"])
    assert len(set(tags)) == 5
    assert web.get(job_id, if_none_match=tags[3]).status_code == 200


# many


def listed(web: Web, **parameters: str) -> list[str]:
    answer = web.http.get("/events", params=parameters)
    assert answer.status_code == 200, answer.text
    return [event["id"] for event in answer.json()["events"]]


def test_the_newest_come_first(web: Web, database: Database[Any]) -> None:
    ids = [web.post().json()["id"] for _ in range(3)]
    assert listed(web) == sorted(ids, reverse=True)


def test_no_events_is_an_empty_page(web: Web, database: Database[Any]) -> None:
    answer = web.http.get("/events")
    assert answer.json() == {"events": [], "next_cursor": None}
    assert "Link" not in answer.headers


def pages(web: Web, **parameters: str) -> list[httpx.Response]:
    """All pages, by following the links."""
    answers = [web.http.get("/events", params=parameters)]
    while "next" in answers[-1].links:
        answers.append(web.http.get(answers[-1].links["next"]["url"]))
    return answers


@pytest.mark.parametrize(("count", "limit", "expected"), [(7, 3, 3), (6, 3, 2), (3, 3, 1)])
def test_links_lead_through_all_pages(
    web: Web, jobs: JobStore, count: int, limit: int, expected: int
) -> None:
    documents = [new_job_document(type="simulate") for _ in range(count)]
    jobs.new_jobs.accept(documents)
    answers = pages(web, limit=str(limit))
    assert len(answers) == expected
    seen = [event["id"] for answer in answers for event in answer.json()["events"]]
    assert seen == sorted((d["_id"] for d in documents), reverse=True)
    assert answers[-1].json()["next_cursor"] is None


def test_a_link_keeps_the_filter(web: Web, jobs: JobStore) -> None:
    jobs.new_jobs.accept([new_job_document(type=name) for name in ("a", "b") * 3])
    answers = pages(web, limit="2", type="a", status="pending")
    assert [len(answer.json()["events"]) for answer in answers] == [2, 1]
    query = parse_qs(urlsplit(answers[0].links["next"]["url"]).query)
    assert query["type"] == ["a"]
    assert query["cursor"] == [answers[0].json()["next_cursor"]]


def test_events_are_filtered_by_status_and_type(web: Web, jobs: JobStore) -> None:
    pending = accept(jobs, type="a")["_id"]
    job = claim(jobs, accept(jobs, type="a")["_id"])
    finish(jobs, job)
    other = accept(jobs, type="b")["_id"]
    assert listed(web, status="pending", type="a") == [pending]
    assert listed(web, status="completed") == [job.id]
    assert listed(web, type="b") == [other]
    assert listed(web, status="failed") == []


def test_events_are_filtered_by_time(web: Web, jobs: JobStore) -> None:
    moments = [times.parsed(f"2026-01-0{day}T00:00:00Z") for day in (1, 2, 3)]
    ids = [accept(jobs, at=moment)["_id"] for moment in moments]
    assert listed(web, created_after="2026-01-02T00:00:00Z") == [ids[2], ids[1]]
    assert listed(web, created_before="2026-01-02T00:00:00Z") == [ids[0]]
    within = {"created_after": "2026-01-01T00:00:01Z", "created_before": "2026-01-03T00:00:00Z"}
    assert listed(web, **within) == [ids[1]]
    assert listed(web, created_before="2026-01-02T01:00:00+01:00") == [ids[0]]
    assert listed(web, created_before="1901-01-01T00:00:00Z") == []
    assert len(listed(web, created_after="0001-01-01T00:00:00Z")) == 3


def test_a_cursor_stays_good_while_events_come_in(web: Web, database: Database[Any]) -> None:
    ids = [web.post().json()["id"] for _ in range(4)]
    first = web.http.get("/events", params={"limit": "2"})
    web.post()
    second = web.http.get(first.links["next"]["url"])
    assert [e["id"] for e in second.json()["events"]] == sorted(ids, reverse=True)[2:]


def test_a_page_of_large_events_ends_early_and_leads_on(web: Web, jobs: JobStore) -> None:
    documents = [new_job_document(payload={"large": "x" * 1_000_000}) for _ in range(9)]
    for document in documents:
        jobs.new_jobs.accept([document])
    answers = pages(web)
    assert [len(answer.json()["events"]) for answer in answers] == [5, 4]
    seen = [event["id"] for answer in answers for event in answer.json()["events"]]
    assert seen == sorted((d["_id"] for d in documents), reverse=True)


def test_a_cursor_tells_nothing_and_takes_nothing_else(web: Web, database: Database[Any]) -> None:
    for _ in range(2):
        web.post(EVENT)
    cursor = web.http.get("/events", params={"limit": "1"}).json()["next_cursor"]
    raw = base64.urlsafe_b64decode(cursor)
    for other in (raw[:-1], raw + b"x", bytes(18), raw[::-1]):
        text = base64.urlsafe_b64encode(other).decode().rstrip("=")
        assert web.http.get("/events", params={"cursor": text}).status_code == 400
