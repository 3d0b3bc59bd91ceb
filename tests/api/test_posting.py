"""POST /events: what is answered, and what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from pymongo.collection import Collection
from pymongo.database import Database

from service.api import times
from service.ids import is_id
from service.job import Hint
from tests.api.server import EVENT, Web
from tests.factories import eventually, hints_in


def test_an_event_is_answered_with_202_and_where_to_look(web: Web) -> None:
    answer = web.post()
    body = answer.json()
    assert answer.status_code == 202
    assert is_id(body["id"])
    assert body["type"] == "simulate"
    assert body["status"] == "pending"
    assert body["links"] == {"self": f"/events/{body['id']}"}
    assert answer.headers["Location"] == f"/events/{body['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Content-Type"] == "application/json"
    assert set(body) == {"id", "type", "status", "created_at", "links"}


def test_an_accepted_event_is_in_mongodb(web: Web, database: Database[Any]) -> None:
    payload = {"duration_ms": 5, "result": {"$gt": "", "a.b": [None, 1.0, 2**53 + 1]}}
    event_id = web.post({"type": "simulate", "payload": payload}).json()["id"]
    stored = database["jobs"].find_one({"_id": event_id})
    assert stored is not None
    assert stored["payload"] == payload
    assert stored["status"] == "pending"
    assert stored["attempts"] == 0
    assert isinstance(stored["created_at"], datetime)


def test_an_accepted_event_has_a_hint_in_redis(web: Web, hints: redis.Redis) -> None:
    event_id = web.post().json()["id"]

    assert eventually(lambda: hints_in(hints)) == [Hint(event_id, "simulate", "default", "normal")]


@pytest.mark.parametrize("priority", ["high", "low"])
def test_a_hint_says_the_priority(web: Web, hints: redis.Redis, priority: str) -> None:
    web.post({**EVENT, "priority": priority})
    assert eventually(lambda: [hint.priority for hint in hints_in(hints)]) == [priority]


def test_a_delayed_event_waits_in_mongodb(web: Web, hints: redis.Redis) -> None:
    before = datetime.now(UTC)
    answer = web.post({**EVENT, "delay_ms": 120_000})
    event = web.get(answer.json()["id"]).json()
    wait = times.parsed(event["next_attempt_at"]) - times.parsed(event["created_at"])
    assert wait == timedelta(seconds=120)
    assert event["run_at"] == event["next_attempt_at"]
    assert abs(times.parsed(event["created_at"]) - before) < timedelta(seconds=5)
    assert answer.headers["Retry-After"] == "120"
    assert hints_in(hints) == []


def test_a_soon_due_event_gets_its_hint_when_it_is_due(web: Web, hints: redis.Redis) -> None:
    web.post({**EVENT, "delay_ms": 300})
    assert hints_in(hints) == []
    assert len(eventually(lambda: hints_in(hints))) == 1


def test_a_run_at_in_the_past_is_now(web: Web) -> None:
    answer = web.post({**EVENT, "run_at": "2001-01-01T00:00:00+01:00"})
    event = web.get(answer.json()["id"]).json()
    assert event["run_at"] == "2000-12-31T23:00:00.000Z"
    assert event["next_attempt_at"] == event["created_at"]


def test_options_are_kept(web: Web, database: Database[Any]) -> None:
    options = {"priority": "low", "max_attempts": 100, "time_limit_ms": 86_400_000}
    event_id = web.post({**EVENT, **options}).json()["id"]
    stored = database["jobs"].find_one({"_id": event_id})
    assert stored is not None
    assert {name: stored[name] for name in options} == options


def test_a_type_that_says_nothing_has_the_defaults(web: Web) -> None:
    event = web.get(web.post().json()["id"]).json()
    assert (event["max_attempts"], event["priority"]) == (5, "normal")


def test_a_request_id_is_echoed_and_stored(web: Web, database: Database[Any]) -> None:
    answer = web.post(x_request_id="req-4711")
    assert answer.headers["X-Request-Id"] == "req-4711"
    stored = database["jobs"].find_one({"_id": answer.json()["id"]})
    assert stored is not None
    assert stored["request_id"] == "req-4711"


@pytest.mark.parametrize("given", ["with space", "x" * 129, "caf\u00e9", ""])
def test_a_bad_request_id_is_replaced(web: Web, given: str) -> None:
    headers = {"X-Request-Id": given.encode("latin-1")}
    made = web.http.get("/health/live", headers=headers).headers["X-Request-Id"]
    assert made not in {given, ""}
    assert made.isascii()


def test_every_request_gets_an_id_of_its_own(web: Web) -> None:
    ids = {web.http.get("/health/live").headers["X-Request-Id"] for _ in range(10)}
    assert len(ids) == 10


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (TRACE, TRACE),
        (TRACE.upper(), None),
        (TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), None),
        ("ff" + TRACE[2:], None),
        ("nonsense", None),
    ],
)
def test_a_trace_context_is_kept_where_it_is_one(
    web: Web, database: Database[Any], given: str, kept: str | None
) -> None:
    event_id = web.post(traceparent=given).json()["id"]
    stored = database["jobs"].find_one({"_id": event_id})
    assert stored is not None
    assert stored.get("traceparent") == kept


def test_received_is_counted_once_an_event(web: Web, counters: Collection[Any]) -> None:
    for _ in range(3):
        web.post(idempotency_key="the-same")
    web.post()

    def received() -> bool:
        counted = counters.find_one({"_id": "simulate"})
        return counted is not None and counted["received"] == 2

    assert eventually(received)


EXACT = {
    "now": "$$NOW",
    "dollar": "$x",
    "$gt": {"$ne": None},
    "a.b.c": {".": "..", "$": "$$"},
    "__proto__": {"constructor": {"prototype": 1}},
    "crlf": "a\r\nSet-Cookie: x=1\x1b[31mred\x1b[0m",
    "bidi": "\u202eabc\u202c\u2066\u2069",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "separators": "\u2028\u2029\u0085",
    "": "empty key",
    " ": " ",
    "numbers": [0, -0.0, 1, 1.0, -1, 2**63 - 1, -(2**63), 0.1, 1e308, 5e-324, 1e22],
    "kinds": [None, True, False, "", [], {}, [[]], [{}]],
    "_id": {"$oid": "507f1f77bcf86cd799439011"},
    "$date": "2020-01-01T00:00:00Z",
    "html": "<script>alert(1)</script>&amp;",
    "del": "\x7f",
    "nonchar": "\ufffe\uffff",
}


def test_data_is_stored_and_returned_exactly(web: Web) -> None:
    event_id = web.post({"type": "simulate", "payload": {"result": EXACT}}).json()["id"]
    returned = web.get(event_id).json()["payload"]["result"]
    assert returned == EXACT
    assert list(returned) == list(EXACT)
    assert [str(number) for number in returned["numbers"]] == list(map(str, EXACT["numbers"]))


def test_a_body_exactly_at_the_limit_is_accepted(web: Web) -> None:
    frame = b'{"type":"simulate","payload":{"result":"%s"}}'
    room = 1_048_576 - len(frame % b"")
    answer = web.send(frame % (b"x" * room))
    assert answer.status_code == 202
    event = web.get(answer.json()["id"]).json()
    assert event["payload"]["result"] == "x" * room
    assert web.send(frame % (b"x" * (room + 1))).status_code == 413


def test_a_body_nested_to_the_limit_is_accepted(web: Web) -> None:
    inner = "[" * 62 + "]" * 62
    body = f'{{"type":"simulate","payload":{{"result":{inner}}}}}'.encode()
    assert web.send(body).status_code == 202
    too_deep = body.replace(inner.encode(), f"[{inner}]".encode())
    assert web.send(too_deep).status_code == 400


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON; charset="UTF-8"',
        "application/cloudevents+json",
    ],
)
def test_json_by_any_of_its_names_is_taken(web: Web, content_type: str) -> None:
    body = b'{"type":"simulate","payload":{}}'
    assert web.send(body, content_type).status_code == 202


def test_a_chunked_body_is_taken(web: Web) -> None:
    chunks = iter([b'{"type":"simulate",', b'"payload":', b"{}}"])
    headers = {"Content-Type": "application/json"}
    assert web.http.post("/events", content=chunks, headers=headers).status_code == 202
