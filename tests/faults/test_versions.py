"""An old and a new version side by side."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from service.job import Hint
from service.queue.messages import lane_message
from tests.faults.stack import Stack
from tests.faults.waiting import eventually
from tests.former_version import former_hint

NEW = {"TEST_NEW_TYPE": "1"}


@pytest.mark.soak
def test_events_of_a_type_that_only_new_workers_know_are_left_to_them(stack: Stack) -> None:
    """The old worker was there first, and leads the sweep."""
    with stack.only_workers(1), stack.web(**NEW) as web, stack.more_workers(1, **NEW):
        api = stack.api_of(web)
        events = [api.post("journal.new") for _ in range(4)]
        for event in events:
            seen = api.wait_final(event, within=20)
            assert (seen["status"], seen["attempts"]) == ("completed", 1)


@pytest.mark.soak
def test_events_wait_for_a_worker_that_knows_their_type(stack: Stack) -> None:
    with stack.only_workers(1), stack.web(**NEW) as web:
        api = stack.api_of(web)
        events = [api.post("journal.new") for _ in range(2)]
        known = [api.post("journal.sync") for _ in range(5)]
        for event in known:
            assert api.wait_final(event)["status"] == "completed"
        assert {api.get(event)["status"] for event in events} == {"pending"}
        with stack.more_workers(1, **NEW):
            for event in events:
                assert api.wait_final(event, within=20)["status"] == "completed"


def test_hints_of_a_former_versions_web_are_worked_off(stack: Stack) -> None:
    """It knows no lanes: what it sends lies in Dramatiq's own lists."""
    events = [stack.api.post("journal.sync", delay_ms=3_600_000) for _ in range(5)]
    now = {"next_attempt_at": datetime.now(UTC)}
    stack.database["jobs"].update_many({"_id": {"$in": events}}, {"$set": now})
    for event in events:
        key, message = former_hint(Hint(event, "journal.sync", "default", "normal"))
        stack.redis_client.hset("dramatiq:default.msgs", key, message)
        stack.redis_client.rpush("dramatiq:default", key)
    for event in events:
        assert stack.api.wait_final(event)["status"] == "completed"
    eventually(lambda: not stack.redis_client.exists("dramatiq:default.msgs"), "all are adopted")


def test_documents_and_messages_of_a_newer_version_are_understood(stack: Stack) -> None:
    event = stack.api.post("journal.async", {"duration_ms": 100}, delay_ms=600)
    changed = {"v": 2, "a_field_of_the_future": {"x": 1}}
    stack.database["jobs"].update_one({"_id": event}, {"$set": changed})
    message = json.loads(lane_message(Hint(event, "journal.async", "default", "normal")))
    message["options"] |= {"v": 2, "an_option_of_the_future": True}
    stack.redis_client.rpush("dramatiq:default:front", json.dumps(message, separators=(",", ":")))
    assert stack.api.wait_final(event)["status"] == "completed"
    assert stack.document(event)["a_field_of_the_future"] == {"x": 1}
