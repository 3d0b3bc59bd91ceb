"""GET /events/{id} and GET /events, by the application in this process.

Its lifespan is left out: it would ask mongomock for the clock, which that does not have.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pymongo.database import Database

import actors
from service.api.times import shown
from service.app import create_app
from service.catalog import catalog
from service.clock import ServerClock
from service.job import Outcome
from service.metrics.http_times import HttpTimes
from service.settings import Settings
from service.store import Stores
from tests import documents
from tests.factories import NOW, ago, new_job_document

UNKNOWN = "0190b8a0-0000-7000-8000-000000000000"


class Client:
    """Asks the application, each time in an event loop of its own."""

    def __init__(self, stores: Stores) -> None:
        self._app = create_app(Settings(), stores, actors.broker, catalog, ServerClock())

    def get(self, path: str, params: Any = None, **headers: str) -> httpx.Response:
        """`if_none_match="x"` becomes the header `If-None-Match`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get(path, params=params, headers=named)

        return asyncio.run(ask())


@pytest.fixture
def client(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Requests are not timed: a thread would write that later, and mongomock has no bulk write."""
    monkeypatch.setattr(HttpTimes, "observe", lambda *_: None)
    return Client(stores)


def put(database: Database[Any], *made: dict[str, Any]) -> list[str]:
    """Inserts them; their ids."""
    documents.insert(database, made)
    return [document["_id"] for document in made]


# one


def test_an_event_that_waits_is_shown(client: Client, database: Database[Any]) -> None:
    (event,) = put(database, new_job_document(payload={"to": "a@example.com", "n": [1, 2.5]}))
    seen = client.get(f"/events/{event}")
    assert (seen.status_code, seen.json()["status"]) == (200, "pending")
    assert seen.json()["payload"] == {"to": "a@example.com", "n": [1, 2.5]}
    assert seen.json()["created_at"] == seen.json()["next_attempt_at"] == shown(NOW)
    assert (seen.json()["priority"], seen.json()["history"]) == ("normal", [])
    assert seen.headers["Retry-After"] == "1"


def test_an_event_that_has_ended_is_shown_with_its_history(
    client: Client, database: Database[Any]
) -> None:
    made = documents.ended(began=ago(3), at=ago(1), result={"ok": True})
    (event,) = put(database, made)
    seen = client.get(f"/events/{event}")
    assert (seen.json()["status"], seen.json()["result"]) == ("completed", {"ok": True})
    assert seen.json()["finished_at"] == shown(ago(1))
    (attempt,) = seen.json()["history"]
    assert (attempt["outcome"], attempt["started_at"]) == ("completed", shown(ago(3)))
    assert "Retry-After" not in seen.headers


def test_a_failed_event_says_why(client: Client, database: Database[Any]) -> None:
    (event,) = put(database, documents.ended(Outcome.REJECTED, message="no"))
    seen = client.get(f"/events/{event}")
    assert (seen.status_code, seen.json()["status"]) == (200, "failed")
    assert seen.json()["error"] == {"reason": "rejected", "message": "no"}


def test_who_has_it_gets_304(client: Client, database: Database[Any]) -> None:
    (event,) = put(database, documents.processing())
    tag = client.get(f"/events/{event}").headers["ETag"]
    again = client.get(f"/events/{event}", if_none_match=tag)
    assert (again.status_code, again.content) == (304, b"")
    database["jobs"].update_one({"_id": event}, {"$set": {"progress": 1}})
    changed = client.get(f"/events/{event}", if_none_match=tag)
    assert (changed.status_code, changed.json()["progress"]) == (200, 1)


def test_an_event_that_is_not_there_is_404(client: Client) -> None:
    assert client.get(f"/events/{UNKNOWN}").status_code == 404


# many


def listed(client: Client, **given: str) -> list[str]:
    answer = client.get("/events", given)
    assert answer.status_code == 200, answer.text
    return [event["id"] for event in answer.json()["events"]]


def test_no_events_is_an_empty_page(client: Client) -> None:
    assert client.get("/events").json() == {"events": [], "next_cursor": None}


def test_events_are_filtered_by_status_and_type(client: Client, database: Database[Any]) -> None:
    waits, other, runs, done, failed, gone = put(
        database,
        new_job_document(type="a"),
        new_job_document(type="b"),
        documents.processing(type="a"),
        documents.ended(type="a"),
        documents.ended(Outcome.REJECTED, type="b"),
        documents.cancelled(type="a"),
    )
    assert listed(client, status="pending", type="a") == [waits]
    assert listed(client, status="processing") == [runs]
    assert listed(client, status="completed") == [done]
    assert set(listed(client, type="b")) == {other, failed}
    assert listed(client, status="cancelled", type="a") == [gone]
    assert listed(client, status="failed", type="a") == []


def test_events_are_filtered_by_time_to_the_millisecond(
    client: Client, database: Database[Any]
) -> None:
    step = timedelta(milliseconds=1)
    before, now, later = put(
        database, *(new_job_document(at=at) for at in (NOW - step, NOW, NOW + step))
    )
    assert listed(client) == [later, now, before]
    assert listed(client, created_after=shown(NOW) or "") == [later, now]
    assert listed(client, created_before=shown(NOW) or "") == [before]
    both = {"created_after": shown(NOW) or "", "created_before": shown(NOW + step) or ""}
    assert listed(client, **both) == [now]


def pages(client: Client, **given: str) -> list[httpx.Response]:
    """All of them, by the cursor."""
    answers = [client.get("/events", given)]
    while cursor := answers[-1].json()["next_cursor"]:
        answers.append(client.get("/events", {**given, "cursor": cursor}))
    return answers


@pytest.mark.parametrize(("count", "expected"), [(7, [3, 3, 1]), (6, [3, 3]), (2, [2])])
def test_a_cursor_leads_through_all_pages_newest_first(
    client: Client, database: Database[Any], count: int, expected: list[int]
) -> None:
    ids = put(database, *(new_job_document(type="a") for _ in range(count)))
    put(database, new_job_document(type="b"))
    answers = pages(client, type="a", limit="3")
    assert [len(answer.json()["events"]) for answer in answers] == expected
    seen = [event["id"] for answer in answers for event in answer.json()["events"]]
    assert seen == sorted(ids, reverse=True)
