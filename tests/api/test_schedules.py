"""Schedules over HTTP: made, changed, looked at, removed, run out of turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pymongo.database import Database

from service.store import JobStore
from service.store.schedules import MOST_SCHEDULES
from tests.api.server import EVENT, Web
from tests.factories import accept, eventually

DAILY = {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "event": EVENT}
MINUTELY = {"every_seconds": 60, "event": EVENT}


def put(web: Web, name: str = "nightly", body: Any = None, **over: Any) -> httpx.Response:
    return web.http.put(f"/schedules/{name}", json=(DAILY if body is None else body) | over)


def get(web: Web, name: str = "nightly") -> dict[str, Any]:
    return dict(web.http.get(f"/schedules/{name}").raise_for_status().json())


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


# made and changed


def test_a_schedule_is_made_and_shown_with_all_that_it_will_do(
    web: Web, database: Database[Any]
) -> None:
    answer = put(web)
    assert (answer.status_code, answer.headers["location"]) == (201, "/schedules/nightly")
    shown = answer.json()
    assert shown == get(web)
    wanted = DAILY | {"name": "nightly", "overlap": "allow", "missed": "one", "paused": False}
    assert {name: shown[name] for name in wanted} == wanted
    assert (shown["every_seconds"], shown["last_run_at"], shown["last_event_id"]) == (None,) * 3
    assert len(shown["upcoming"]) == 5
    assert shown["upcoming"][0] == shown["next_run_at"]
    now = datetime.now(UTC)
    assert now < moment(shown["next_run_at"]) <= now + timedelta(days=1, hours=1)
    assert database["schedules"].find_one()["event"] == EVENT


def test_a_change_replaces_the_definition_and_keeps_what_has_run(
    web: Web, database: Database[Any]
) -> None:
    made = put(web, missed="none", paused=True).json()
    has_run = {"last_run_at": datetime(2026, 1, 1, tzinfo=UTC), "last_event_id": "x"}
    database["schedules"].update_one({"_id": "nightly"}, {"$set": has_run})
    answer = put(web, body=MINUTELY)
    assert answer.status_code == 200
    changed = answer.json()
    assert (changed["cron"], changed["timezone"], changed["every_seconds"]) == (None, None, 60)
    assert (changed["missed"], changed["paused"]) == ("one", False)
    assert (changed["last_run_at"], changed["last_event_id"]) == ("2026-01-01T00:00:00.000Z", "x")
    assert changed["created_at"] == made["created_at"]
    assert moment(changed["next_run_at"]).timestamp() % 60 == 0


def test_a_tick_that_is_due_survives_a_change_that_is_not_about_when_it_ticks(
    web: Web, database: Database[Any]
) -> None:
    put(web)
    due = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
    database["schedules"].update_one({"_id": "nightly"}, {"$set": {"next_run_at": due}})
    assert put(web, overlap="skip").json()["next_run_at"] == "2026-01-01T02:00:00.000Z"
    assert put(web, cron="0 4 * * *").json()["next_run_at"] > "2026-01-02"


def test_a_paused_schedule_does_not_tick_and_goes_on_from_then(web: Web, database: Any) -> None:
    paused = put(web, paused=True).json()
    assert (paused["paused"], paused["next_run_at"], paused["upcoming"]) == (True, None, [])
    assert moment(put(web).json()["next_run_at"]) > datetime.now(UTC)


def test_an_event_is_kept_exactly_whatever_its_keys(web: Web, database: Database[Any]) -> None:
    result = {"$set": 1, "a.b": {"$inc": "$$NOW"}, "__proto__": [], "\u202e": "\U0001f600"}
    event = EVENT | {"payload": {"result": result}, "priority": "high", "max_attempts": 3}
    for status in (201, 200):
        assert put(web, event=event).status_code == status
    assert get(web)["event"] == event


@pytest.mark.parametrize("name", ["a", "0", "a.b-c_d", "x" * 100])
def test_names_are_lower_case(web: Web, database: Any, name: str) -> None:
    assert put(web, name).status_code == 201


@pytest.mark.parametrize("name", ["A", ".a", "-", "a b", "x" * 101, "%24", "a%2Fb", "a%00"])
def test_no_schedule_has_another_name(web: Web, database: Database[Any], name: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        answer = web.http.request(method, f"/schedules/{name}", json=DAILY)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
    assert database["schedules"].count_documents({}) == 0


@pytest.mark.parametrize(
    ("over", "pointer"),
    [
        ({"cron": "0 3 * *"}, "/cron"),
        ({"cron": "61 3 * * *"}, "/cron"),
        ({"cron": "0 0 30 2 *"}, "/cron"),
        ({"cron": "* * */20 * 1L"}, "/cron"),
        ({"cron": ""}, "/cron"),
        ({"cron": "*" * 201}, "/cron"),
        ({"cron": None}, "/cron"),
        ({"cron": 5}, "/cron"),
        ({"cron": {"$gt": ""}}, "/cron"),
        ({"timezone": "Mars/Olympus"}, "/timezone"),
        ({"timezone": "../../etc/passwd"}, "/timezone"),
        ({"timezone": "localtime"}, "/timezone"),
        ({"every_seconds": 60}, ""),
        ({"cron": ...}, ""),
        ({"cron": ..., "every_seconds": 60}, "/timezone"),
        ({"cron": ..., "timezone": ..., "every_seconds": 0}, "/every_seconds"),
        ({"cron": ..., "timezone": ..., "every_seconds": 31_536_001}, "/every_seconds"),
        ({"cron": ..., "timezone": ..., "every_seconds": 1.5}, "/every_seconds"),
        ({"cron": ..., "timezone": ..., "every_seconds": "60"}, "/every_seconds"),
        ({"overlap": "queue"}, "/overlap"),
        ({"missed": "all"}, "/missed"),
        ({"paused": "false"}, "/paused"),
        ({"paused": 0}, "/paused"),
        ({"name": "nightly"}, "/name"),
        ({"next_run_at": "2030-01-01T00:00:00Z"}, "/next_run_at"),
        ({"_id": "x"}, "/_id"),
        ({"event": ...}, "/event"),
        ({"event": []}, "/event"),
        ({"event": {}}, "/event/type"),
        ({"event": {"type": "simulate"}}, "/event/payload"),
        ({"event": EVENT | {"type": "simulat"}}, "/event/type"),
        ({"event": EVENT | {"payload": {"duration_ms": -1}}}, "/event/payload/duration_ms"),
        ({"event": EVENT | {"payload": {"a/b": 1}}}, "/event/payload/a~1b"),
        ({"event": EVENT | {"run_at": "2030-01-01T00:00:00Z"}}, "/event/run_at"),
        ({"event": EVENT | {"delay_ms": 5}}, "/event/delay_ms"),
        ({"event": EVENT | {"idempotency_key": "x"}}, "/event/idempotency_key"),
        ({"event": EVENT | {"schedule": "x"}}, "/event/schedule"),
        ({"event": EVENT | {"payload": {"result": "\0"}}}, "/event/payload/result"),
        ({"event": EVENT | {"payload": {"result": 2**63}}}, "/event/payload/result"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_pointer(
    web: Web, database: Database[Any], over: dict[str, Any], pointer: str
) -> None:
    body = {name: value for name, value in (DAILY | over).items() if value is not ...}
    answer = web.http.put("/schedules/nightly", json=body)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert database["schedules"].count_documents({}) == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"cron":', 400),
        (b'{"cron": NaN}', 400),
        (b'{"cron": "@daily", "cron": "@daily"}', 400),
        (b'{"event": ' + b'{"a":' * 70 + b"1" + b"}" * 71, 400),
        (b" " * 2_000_000, 413),
    ],
)
def test_a_body_is_strict_json_within_its_bounds(
    web: Web, database: Any, body: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = web.http.put("/schedules/nightly", content=body, headers=headers)
    assert answer.status_code == status


def test_there_are_ten_thousand_at_most(web: Web, database: Database[Any]) -> None:
    put(web)
    (one,) = database["schedules"].find()
    copies = [one | {"_id": f"s{number}"} for number in range(MOST_SCHEDULES - 2)]
    database["schedules"].insert_many(copies)
    assert put(web, "last").status_code == 201
    refused = put(web, "more")
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("too-many-schedules")
    assert put(web, "last").status_code == 200
    assert database["schedules"].count_documents({}) == MOST_SCHEDULES


# looked at


def test_what_is_not_there_is_a_404(web: Web, database: Any) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/run")):
        answer = web.http.request(method, f"/schedules/missing{path}")
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:pulsequeue:problem:unknown-schedule"


def test_an_etag_spares_what_the_client_has(web: Web, database: Any) -> None:
    put(web)
    answer = web.http.get("/schedules/nightly")
    headers = {"If-None-Match": answer.headers["etag"]}
    assert web.http.get("/schedules/nightly", headers=headers).status_code == 304
    put(web, missed="none")
    assert web.http.get("/schedules/nightly", headers=headers).status_code == 200


def test_schedules_are_listed_by_name_page_by_page(web: Web, database: Any) -> None:
    names = ["a", "a.b", "b", "b-1", "c"]
    for name in reversed(names):
        put(web, name)
    assert [s["name"] for s in web.http.get("/schedules").json()["schedules"]] == names
    found, target = [], "/schedules?limit=2"
    while target:
        answer = web.http.get(target)
        found.append([s["name"] for s in answer.json()["schedules"]])
        link = answer.headers.get("link", "")
        target = link.partition(">")[0].lstrip("<")
        cursor = answer.json()["next_cursor"]
        assert (cursor is None) == (not target)
    assert found == [["a", "a.b"], ["b", "b-1"], ["c"]]


def test_a_page_of_large_schedules_ends_early(web: Web, database: Any) -> None:
    event = EVENT | {"payload": {"result": "x" * 1_000_000}}
    for name in "abcdef":
        put(web, name, event=event)
    page = web.http.get("/schedules").json()
    assert 0 < len(page["schedules"]) < 6
    assert page["schedules"][0]["event"] == event
    rest = web.http.get(f"/schedules?cursor={page['next_cursor']}").json()
    assert [s["name"] for s in page["schedules"] + rest["schedules"]] == list("abcdef")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "cursor=A", "cursor=", "status=x"])
def test_parameters_are_strict(web: Web, database: Any, query: str) -> None:
    assert web.http.get(f"/schedules?{query}").status_code == 400


def test_a_schedule_is_removed_and_its_events_stay(web: Web, database: Database[Any]) -> None:
    put(web)
    event_id = web.http.post("/schedules/nightly/run").json()["id"]
    answer = web.http.delete("/schedules/nightly")
    assert (answer.status_code, answer.content) == (204, b"")
    assert web.http.get("/schedules/nightly").status_code == 404
    assert web.get(event_id).json()["schedule"] == "nightly"


# run out of turn


def test_a_run_answers_as_a_post_and_is_the_schedules_last(web: Web, database: Any) -> None:
    put(web, event=EVENT | {"priority": "high"})
    answer = web.http.post("/schedules/nightly/run", headers={"X-Request-Id": "me"})
    assert answer.status_code == 202
    accepted = answer.json()
    assert (accepted["status"], accepted["schedule"]) == ("pending", "nightly")
    assert answer.headers["location"] == f"/events/{accepted['id']}"
    assert answer.headers["retry-after"] == "1"
    event = web.get(accepted["id"]).json()
    assert (event["type"], event["priority"], event["schedule"]) == ("simulate", "high", "nightly")
    schedule = get(web)
    assert schedule["last_event_id"] == accepted["id"]
    assert schedule["last_run_at"] == accepted["created_at"]


def test_a_run_of_a_paused_schedule_is_made_too(web: Web, database: Any) -> None:
    put(web, paused=True)
    assert web.http.post("/schedules/nightly/run", json={}).status_code == 202


def test_a_run_may_be_repeated_with_its_key(web: Web, database: Database[Any]) -> None:
    put(web)
    headers = {"Idempotency-Key": "once"}
    first, again = (web.http.post("/schedules/nightly/run", headers=headers) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert web.post(idempotency_key="once").status_code == 422
    assert database["jobs"].count_documents({}) == 1


def test_a_run_takes_no_body(web: Web, database: Any) -> None:
    put(web)
    assert web.http.post("/schedules/nightly/run", json={"a": 1}).status_code == 422


# its events


def test_events_are_listed_by_their_schedule(web: Web, database: Any, jobs: JobStore) -> None:
    put(web)
    put(web, "other")
    accept(jobs)
    mine = [web.http.post("/schedules/nightly/run").json()["id"] for _ in range(3)]
    web.http.post("/schedules/other/run")
    found = web.http.get("/events?schedule=nightly").json()["events"]
    assert [event["id"] for event in found] == mine[::-1]
    assert web.http.get("/events?schedule=A").status_code == 400
    body = {"schedule": "nightly", "status": "failed", "dry_run": True}
    assert web.http.post("/events/retry", json=body).json() == {"matched": 0, "retried": 0}


def test_an_event_that_no_schedule_made_has_none(web: Web, database: Any) -> None:
    assert web.get(web.post().json()["id"]).json()["schedule"] is None
    assert database["jobs"].count_documents({"schedule": {"$exists": True}}) == 0


def test_events_of_a_schedule_are_cancelled_and_retried_alone(web: Web, database: Any) -> None:
    put(web)
    put(web, "other")
    mine = web.http.post("/schedules/nightly/run").json()["id"]
    other = web.http.post("/schedules/other/run").json()["id"]
    which = {"schedule": "nightly"}
    cancelled = web.http.post("/events/cancel", json=which).json()
    assert cancelled == {"matched": 1, "cancelled": 1, "asked": 0}
    assert [web.get(i).json()["status"] for i in (mine, other)] == ["cancelled", "pending"]
    assert web.http.post("/events/retry?schedule=nightly").json() == {"matched": 1, "retried": 1}
    assert web.http.post("/events/cancel", json={"schedule": "A"}).status_code == 422


def test_no_client_says_that_a_schedule_made_its_event(web: Web, database: Any) -> None:
    answer = web.post({**EVENT, "schedule": "nightly"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/schedule"


def test_a_schedule_gives_its_events_their_group(web: Web, database: Any) -> None:
    assert put(web, event={**EVENT, "group": "a"}).status_code == 201
    event_id = web.http.post("/schedules/nightly/run").json()["id"]
    assert web.get(event_id).json()["group"] == "a"
    refused = put(web, event={**EVENT, "group": ""})
    assert refused.json()["errors"][0]["pointer"] == "/event/group"


# metrics


def test_the_last_run_of_two_hundred_schedules_is_shown(web: Web, database: Database[Any]) -> None:
    put(web)
    (one,) = database["schedules"].find()
    at = datetime(2026, 1, 2, tzinfo=UTC)
    copies = [one | {"_id": f"s{n:03}", "last_run_at": at} for n in range(250)]
    database["schedules"].insert_many(copies)
    name = "pulsequeue_schedule_last_run_timestamp_seconds"

    def shown() -> list[str]:
        lines = web.http.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith(name)]

    lines = eventually(shown)
    assert len(lines) == 200
    assert lines[0] == f'{name}{{schedule="s000"}} {at.timestamp():.9g}'


def test_how_late_schedules_are_is_shown(web: Web, database: Database[Any]) -> None:
    put(web)
    due = datetime.now(UTC) - timedelta(seconds=100)
    database["schedules"].update_one({"_id": "nightly"}, {"$set": {"next_run_at": due}})

    def late() -> float:
        headers = {"Accept": "application/json"}
        shown = web.http.get("/metrics", headers=headers).json()
        return float(shown["schedules_late_seconds"] or 0)

    assert eventually(lambda: late() > 90)
