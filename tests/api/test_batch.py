"""POST /events/batch."""

from __future__ import annotations

from typing import Any

import httpx
import redis
from pymongo.collection import Collection
from pymongo.database import Database

from tests.api.server import EVENT, Web
from tests.factories import eventually, hints_in


def post(web: Web, events: list[Any]) -> httpx.Response:
    return web.http.post("/events/batch", json={"events": events})


def test_all_accepted_is_202_with_results_in_order(web: Web, database: Database[Any]) -> None:
    events = [{"type": "simulate", "payload": {"result": i}} for i in range(20)]
    answer = post(web, events)
    assert answer.status_code == 202
    results = answer.json()["results"]
    stored = {d["_id"]: d["payload"] for d in database["jobs"].find()}
    assert [stored[result["id"]]["result"] for result in results] == list(range(20))
    assert {frozenset(r) for r in results} == {
        frozenset({"id", "type", "status", "created_at", "links"})
    }


def test_some_refused_is_207_and_the_others_are_stored(web: Web, database: Database[Any]) -> None:
    events = [EVENT, {"type": "nothing", "payload": {}}, EVENT, 5, {**EVENT, "max_attempts": 0}]
    answer = post(web, events)
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert ["error" in result for result in results] == [False, True, False, True, True]
    assert results[1]["error"]["status"] == 422
    assert results[1]["error"]["errors"][0]["pointer"] == "/type"
    assert results[4]["error"]["errors"][0]["pointer"] == "/max_attempts"
    assert results[1]["error"]["request_id"] == answer.headers["X-Request-Id"]
    assert database["jobs"].count_documents({}) == 2


def test_a_batch_may_hold_a_thousand(web: Web, hints: redis.Redis) -> None:
    answer = post(web, [EVENT] * 1_000)
    assert answer.status_code == 202
    assert len({result["id"] for result in answer.json()["results"]}) == 1_000
    assert eventually(lambda: len(hints_in(hints)) == 1_000)


def test_a_batch_is_counted_by_type(web: Web, counters: Collection[Any]) -> None:
    post(web, [EVENT] * 30)

    def received() -> bool:
        counted = counters.find_one({"_id": "simulate"})
        return counted is not None and counted["received"] == 30

    assert eventually(received)


def test_a_key_twice_in_one_batch_is_one_event(web: Web, database: Database[Any]) -> None:
    keyed = {**EVENT, "idempotency_key": "twin"}
    results = post(web, [keyed, keyed, {**keyed, "priority": "low"}]).json()["results"]
    assert results[0]["id"] == results[1]["id"]
    assert [r.get("replayed") for r in results[:2]] == [None, True]
    assert results[2]["error"]["type"].endswith(":key-reused")
    assert database["jobs"].count_documents({}) == 1


def test_a_bad_key_is_its_own_events_fault(web: Web) -> None:
    results = post(web, [{**EVENT, "idempotency_key": k} for k in ("", "a b", 5, "k" * 256)])
    pointers = [r["error"]["errors"][0]["pointer"] for r in results.json()["results"]]
    assert pointers == ["/idempotency_key"] * 4


def test_an_event_too_large_by_itself_is_refused_in_a_batch(web: Web) -> None:
    large = {"type": "simulate", "payload": {"result": "x" * 1_100_000}}
    answer = post(web, [EVENT, large])
    assert answer.status_code == 207
    assert ["error" in result for result in answer.json()["results"]] == [False, True]


def test_a_large_batch_does_not_hold_up_others(web: Web) -> None:
    events = [{"type": "simulate", "payload": {"result": "x" * 14_000}}] * 1_000
    assert post(web, events).status_code == 202
    assert web.http.get("/health/live").elapsed.total_seconds() < 0.5
