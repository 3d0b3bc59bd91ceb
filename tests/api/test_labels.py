"""Labels of events: `group`."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.database import Database

from tests.api.server import EVENT, Web

pytestmark = pytest.mark.usefixtures("database")
LONGEST = "!" * 127 + "~"


def post(web: Web, **fields: Any) -> str:
    """Its id."""
    answer = web.post({**EVENT, **fields})
    assert answer.status_code == 202
    return str(answer.json()["id"])


@pytest.mark.parametrize("group", ["a", "customer-17/eu", "$x.y", LONGEST])
def test_a_group_is_kept_and_shown_as_it_was_posted(
    web: Web, database: Database[Any], group: str
) -> None:
    event_id = post(web, group=group)
    assert web.get(event_id).json()["group"] == group
    assert [e["group"] for e in web.http.get("/events").json()["events"]] == [group]
    stored = database["jobs"].find_one({"_id": event_id})
    assert stored is not None
    assert stored["group"] == group


def test_an_event_without_a_group_shows_null_and_stores_nothing(
    web: Web, database: Database[Any]
) -> None:
    event_id = post(web)
    assert web.get(event_id).json()["group"] is None
    assert database["jobs"].count_documents({"group": {"$exists": True}}) == 0


def test_items_of_a_batch_have_their_own_groups(web: Web) -> None:
    events = [{**EVENT, "group": "a"}, {**EVENT, "group": "b"}, EVENT, {**EVENT, "group": ""}]
    answer = web.http.post("/events/batch", json={"events": events})
    assert answer.status_code == 207
    *fine, refused = answer.json()["results"]
    assert [web.get(one["id"]).json()["group"] for one in fine] == ["a", "b", None]
    assert refused["error"]["errors"][0]["pointer"] == "/group"


@pytest.mark.parametrize(
    "group", ["", LONGEST + "!", "a b", "a\n", "\u00e4", "a\u0000", 1, None, ["a"], {"$gt": ""}]
)
def test_what_is_no_group_is_refused(web: Web, database: Database[Any], group: Any) -> None:
    answer = web.post({**EVENT, "group": group})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/group"
    assert database["jobs"].count_documents({}) == 0


def test_a_key_of_a_batch_has_no_line_break_behind_it(web: Web) -> None:
    answer = web.http.post("/events/batch", json={"events": [{**EVENT, "idempotency_key": "a\n"}]})
    assert answer.status_code == 207
    error = answer.json()["results"][0]["error"]
    assert error["errors"][0]["pointer"] == "/idempotency_key"


def test_another_group_under_the_same_key_is_another_body(web: Web) -> None:
    body = {**EVENT, "group": "a"}
    assert web.post(body, idempotency_key="same").status_code == 202
    assert web.post(body, idempotency_key="same").headers["Idempotency-Replayed"] == "true"
    assert web.post({**EVENT, "group": "b"}, idempotency_key="same").status_code == 422


def test_a_list_is_filtered_by_group(web: Web) -> None:
    wanted = [post(web, group="a") for _ in range(3)]
    post(web, group="b")
    post(web)
    page = web.http.get("/events?type=simulate&group=a&limit=2").json()
    rest = web.http.get(
        "/events", params={"type": "simulate", "group": "a", "cursor": page["next_cursor"]}
    )
    found = [e["id"] for e in page["events"] + rest.json()["events"]]
    assert found == wanted[::-1]
    assert web.http.get("/events?type=webhook&group=a").json()["events"] == []


@pytest.mark.parametrize("ask", ["group=a", "type=simulate&group=", "type=simulate&group=a%0A"])
def test_a_filter_by_group_that_does_not_fit_is_refused(web: Web, ask: str) -> None:
    answer = web.http.get(f"/events?{ask}")
    assert answer.status_code == 400
    assert "group" in answer.json()["detail"]


def test_a_group_is_cancelled_and_retried_alone(web: Web) -> None:
    mine = post(web, group="a", delay_ms=60_000)
    others = [post(web, group="b", delay_ms=60_000), post(web, delay_ms=60_000)]
    which = {"type": "simulate", "group": "a"}
    cancelled = web.http.post("/events/cancel", json=which).json()
    assert cancelled == {"matched": 1, "cancelled": 1, "asked": 0}
    assert {web.get(event_id).json()["status"] for event_id in others} == {"pending"}
    assert web.http.post("/events/retry", json=which).json() == {"matched": 1, "retried": 1}
    assert web.get(mine).json()["status"] == "pending"
