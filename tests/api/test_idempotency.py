"""Idempotency keys: one event a key, whatever happens."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from pymongo.database import Database

from service.store import JobStore
from tests.api.server import EVENT, Web
from tests.factories import ahead, claim, finish


def test_the_same_key_and_body_give_the_first_event_again(
    web: Web, database: Database[Any]
) -> None:
    first, second = web.post(idempotency_key="a"), web.post(idempotency_key="a")
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert database["jobs"].count_documents({}) == 1


def test_another_body_is_refused(web: Web, database: Database[Any]) -> None:
    web.post(idempotency_key="a")
    answer = web.post({**EVENT, "priority": "high"}, idempotency_key="a")
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":key-reused")
    assert database["jobs"].count_documents({}) == 1


def test_the_same_json_is_the_same_body(web: Web, database: Database[Any]) -> None:
    def send(body: bytes) -> httpx.Response:
        headers = {"Idempotency-Key": "a", "Content-Type": "application/json"}
        return web.http.post("/events", content=body, headers=headers)

    first = send(b'{"type":"simulate","payload":{"result":[1,"\\u00e9"]}}')
    same = send(' { "payload" : {"result":[1, "\u00e9"]}, "type":"simul\\u0061te" }'.encode())
    assert same.json()["id"] == first.json()["id"]
    for other in (b'{"type":"simulate","payload":{"result":[1.0,"\\u00e9"]}}',):
        assert send(other).status_code == 422


def test_a_replay_shows_what_became_of_the_event(web: Web, jobs: JobStore) -> None:
    event_id = web.post(idempotency_key="a").json()["id"]
    finish(jobs, claim(jobs, event_id, at=ahead(600)), at=ahead(600))
    replay = web.post(idempotency_key="a")
    assert replay.status_code == 202
    assert replay.json()["status"] == "completed"
    assert "Retry-After" not in replay.headers


def test_keys_are_one_namespace_for_header_and_batch(web: Web, database: Database[Any]) -> None:
    first = web.post(idempotency_key="a").json()["id"]
    events = [{**EVENT, "idempotency_key": "a"}, {**EVENT, "idempotency_key": "b"}]
    results = web.http.post("/events/batch", json={"events": events}).json()["results"]
    assert results[0]["id"] == first
    assert results[0]["replayed"] is True
    assert web.post(idempotency_key="b").json()["id"] == results[1]["id"]


def test_fifty_clients_with_one_key_get_one_event(web: Web, database: Database[Any]) -> None:
    def post(_: int) -> httpx.Response:
        with httpx.Client(base_url=web.url, trust_env=False) as own:
            return own.post("/events", json=EVENT, headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert database["jobs"].count_documents({}) == 1


def test_a_key_may_be_255_characters(web: Web) -> None:
    key = "~" * 255
    assert web.post(idempotency_key=key).status_code == 202
    assert json.loads(web.post(idempotency_key=key).text)["type"] == "simulate"
