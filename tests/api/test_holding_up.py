"""One client's body never holds up another client: not while it is read, checked and stored, and
not while the event is shown. `python -m tests.api.hostile_bodies` has more of them, and figures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pymongo.database import Database

from tests.api.hostile_bodies import (
    MEBIBYTE,
    VALUES,
    Hostile,
    another_client,
    batch,
    event,
    many_keys,
    post,
)
from tests.api.server import Web

LONG_SECONDS = 1.0
"""Far more than it takes, far less than it did."""
_BATCH = "/events/batch"


@pytest.fixture(scope="module")
def product_of_key_and_members() -> bytes:
    """A pointer to each of its members has half a million characters."""
    return event(b'{"' + b"k" * (MEBIBYTE // 2) + b'\\u0041":[1' + b",1" * 200_000 + b"]}")


def held_up(web: Web, hostile: Hostile, method: str = "POST") -> tuple[int, bytes, float]:
    """The answer, and how long another client had to wait meanwhile, at the most."""
    with another_client(web.port) as other:
        status, content = post(web.port, hostile, method)
    return status, content, other.longest_seconds


def test_a_long_key_over_many_members(web: Web, product_of_key_and_members: bytes) -> None:
    status, _, seconds = held_up(web, Hostile("", "/events", product_of_key_and_members))
    assert status == 202
    assert seconds < LONG_SECONDS


def test_a_batch_with_an_event_that_is_larger_than_an_event_may_be(web: Web) -> None:
    members = b"[1" + b",1" * 1_000_000 + b"]"
    value = b'{"' + b"k" * 1_000_000 + b'\\u0041":' + members + b"}"
    status, content, seconds = held_up(web, Hostile("", _BATCH, batch([event(value)])))
    assert status == 207
    (result,) = json.loads(content)["results"]
    assert result["error"]["errors"][0]["detail"].endswith("1048576 are allowed")
    assert seconds < LONG_SECONDS


@pytest.mark.parametrize("name", ["deep lists", "empty objects", "long floats", "integers"])
def test_a_large_batch_of_large_events(web: Web, name: str) -> None:
    value = VALUES[name](MEBIBYTE // 2)
    status, _, seconds = held_up(web, Hostile("", _BATCH, batch([event(value)] * 3)))
    assert status == 202
    assert seconds < LONG_SECONDS


def test_large_events_that_do_not_fit(web: Web) -> None:
    status, content, seconds = held_up(web, Hostile("", _BATCH, batch([many_keys(900_000)] * 3)))
    assert status == 207
    errors = [result["error"]["errors"] for result in json.loads(content)["results"]]
    assert [len(one) for one in errors] == [20] * 3
    assert seconds < LONG_SECONDS


def test_an_answer_does_not_repeat_a_long_key_for_each_fault(web: Web) -> None:
    body = event(b'{"' + b"k" * 900_000 + b'":[' + b",".join([b'"\\u0000"'] * 100) + b"]}")
    status, content = post(web.port, Hostile("", "/events", body))
    assert status == 422
    assert len(content) < 2 * MEBIBYTE


def test_large_events_are_shown_without_holding_up_others(web: Web) -> None:
    body = event(VALUES["deep lists"](MEBIBYTE - 100))
    status, content = post(web.port, Hostile("", "/events", body))
    assert status == 202
    path = json.loads(content)["links"]["self"]
    for looked_at in (path, "/events?limit=200"):
        status, content, seconds = held_up(web, Hostile("", looked_at, b""), "GET")
        assert status == 200
        assert seconds < LONG_SECONDS
    shown = next(e for e in json.loads(content)["events"] if e["id"] == path[8:])
    assert shown["payload"] == json.loads(body)["payload"]


def test_a_batch_of_a_million_events_is_refused(web: Web) -> None:
    status, content, seconds = held_up(web, Hostile("", _BATCH, batch([b"{}"] * 1_500_000)))
    assert status == 422
    assert json.loads(content)["errors"][0]["pointer"] == "/events"
    assert seconds < LONG_SECONDS


def test_a_large_batch_that_is_not_json_stores_nothing(web: Web, database: Database[Any]) -> None:
    whole = batch([event(VALUES["integers"](500_000))] * 4)
    for body in (whole[:-2], whole[:-4] + b"]}", whole + b"x", whole.replace(b"1,1]", b"1,1,]")):
        assert post(web.port, Hostile("", _BATCH, body))[0] == 400
    assert database["jobs"].count_documents({}) == 0
