"""Redis dies, forgets, hangs, fills up; and lies."""

from __future__ import annotations

import json
import signal
import statistics
import time

import pytest
import redis

from service.job import Hint
from service.queue.messages import hint_message, lane_message
from tests.factories import hints_in, put_hints
from tests.faults.processes import send
from tests.faults.stack import Stack
from tests.faults.waiting import eventually
from tests.former_version import message_id_of

SOON = 500 / 1000
"""How long a POST may take whatever Redis does, in seconds."""


def post_times(stack: Stack, count: int) -> tuple[list[str], list[float]]:
    """Posts so many events one after the other: their ids, and how long each took."""
    events, times = [], []
    for _ in range(count):
        began = time.monotonic()
        events.append(stack.api.post("journal.sync"))
        times.append(time.monotonic() - began)
    return events, times


def all_complete(stack: Stack, events: list[str], within: float = 15) -> None:
    for event in events:
        seen = stack.api.wait_final(event, within=within)
        assert seen["status"] == "completed", seen
        assert len(stack.journal.ends(event)) == 1


def test_posts_are_accepted_and_jobs_complete_while_redis_is_dead(stack: Stack) -> None:
    stack.redis.kill()
    events, times = post_times(stack, 30)
    all_complete(stack, events)
    assert max(times) < SOON


def test_what_waited_in_a_redis_that_came_back_empty_completes(stack: Stack) -> None:
    slow = [stack.api.post("journal.sync", {"duration_ms": 700}) for _ in range(16)]
    events, _ = post_times(stack, 30)
    stack.redis.kill()
    for file in stack.redis.data_dir.rglob("appendonly*"):
        if file.is_file():  # since Redis 7 they are in a folder of that name
            file.unlink()
    stack.redis.start()
    all_complete(stack, slow + events)


def test_jobs_complete_though_redis_was_flushed(stack: Stack) -> None:
    slow = [stack.api.post("journal.sync", {"duration_ms": 700}) for _ in range(16)]
    events, _ = post_times(stack, 30)
    stack.redis_client.flushall()
    all_complete(stack, slow + events)


def test_jobs_complete_though_redis_lost_its_scripts(stack: Stack) -> None:
    stack.redis_client.script_flush()
    events, times = post_times(stack, 10)
    stack.redis_client.script_flush()
    all_complete(stack, events, within=3)
    assert max(times) < SOON


def test_posts_are_quick_and_jobs_complete_while_redis_hangs(stack: Stack) -> None:
    stack.redis.freeze()
    events, times = post_times(stack, 40)
    all_complete(stack, events)
    assert max(times) < SOON
    assert stack.api.health()["status"] == "degraded"
    stack.redis.thaw()
    after, _ = post_times(stack, 5)
    all_complete(stack, after, within=5)


def test_posts_are_quick_and_jobs_complete_while_redis_is_slow(stack: Stack) -> None:
    stack.redis_proxy.delay(0.2)
    events, times = post_times(stack, 30)
    all_complete(stack, events)
    assert max(times) < SOON


def test_jobs_complete_once_though_redis_loses_its_replies(stack: Stack) -> None:
    stack.redis_proxy.drop_replies()
    events, times = post_times(stack, 20)
    all_complete(stack, events)
    stack.redis_proxy.flow()
    after, _ = post_times(stack, 5)
    all_complete(stack, after, within=5)
    assert max(times) < SOON


def test_posts_are_quick_and_jobs_complete_while_redis_is_out_of_memory(stack: Stack) -> None:
    stack.redis_client.config_set("maxmemory", "1kb")
    try:
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            stack.redis_client.set("x", "y")
        events, times = post_times(stack, 40)
        all_complete(stack, events)
    finally:
        stack.redis_client.config_set("maxmemory", "0")
    assert max(times) < SOON
    assert statistics.median(times) < 0.1


def test_a_retry_while_redis_is_away_is_not_lost(stack: Stack) -> None:
    event = stack.api.post("journal.sync", {"duration_ms": 400, "fail_times": 2})
    stack.wait_held(event)
    stack.redis_proxy.refuse()
    seen = stack.api.wait_final(event)
    assert [e["outcome"] for e in seen["history"]] == ["error", "error", "completed"]


def test_a_dead_letter_that_cant_be_sent_arrives_later(stack: Stack) -> None:
    event = stack.api.post("journal.sync", {"reject": True, "duration_ms": 300})
    stack.wait_held(event)
    stack.redis_proxy.refuse()
    assert stack.api.wait_final(event)["error"]["reason"] == "rejected"
    assert "dead_lettered_at" not in stack.document(event)
    stack.redis_proxy.flow()
    eventually(lambda: "dead_lettered_at" in stack.document(event), "it arrives", within=12)


def test_a_delayed_event_runs_in_time_though_redis_died(stack: Stack) -> None:
    began = time.monotonic()
    event = stack.api.post("journal.sync", delay_ms=2_000)
    stack.redis.kill()
    stack.redis.start()
    stack.api.wait_final(event)
    assert 1.9 < time.monotonic() - began < 5


# what it may hold


def put(stack: Stack, key: str, message: bytes | None) -> None:
    """Puts a message where a former version's web puts them for the queue `default`."""
    if message is not None:
        stack.redis_client.hset("dramatiq:default.msgs", key, message)
    stack.redis_client.rpush("dramatiq:default", key)


def put_in_front(stack: Stack, message: bytes) -> None:
    """Puts a message where idle workers of the queue `default` wait."""
    stack.redis_client.rpush("dramatiq:default:front", message)


def forged_hint(event: str, **changes: object) -> bytes:
    """A hint as it lies in a lane, with some of its fields changed."""
    fields = json.loads(lane_message(Hint(event, "journal.sync", "default", "normal")))
    return json.dumps(fields | changes, separators=(",", ":")).encode()


def forged(event: str, **changes: object) -> bytes:
    """A message for the event with some of its fields changed."""
    message = hint_message(Hint(event, "journal.sync", "default", "normal"))
    return json.dumps(message.asdict() | changes).encode()


def test_tenfold_and_shuffled_messages_have_one_effect(stack: Stack) -> None:
    events = [stack.api.post("journal.sync", {"duration_ms": 50}) for _ in range(20)]
    for copy in range(10):
        for event in events[copy::3] + events[::-1]:
            put(stack, message_id_of(event), forged(event))
        put_hints(stack.redis_client, [Hint(e, "journal.sync", "default", "low") for e in events])
    all_complete(stack, events)
    for event in events:
        assert len(stack.journal.starts(event)) == 1
        assert stack.document(event)["attempts"] == 1


JUNK: dict[str, bytes | None] = {
    "no content": None,
    "no JSON": b"\xff\xfe{",
    "no object": b"[1, 2]",
    "nothing in it": b"{}",
    "an unknown actor": forged("x", actor_name="nobody"),
    "another queue": forged("x", queue_name="elsewhere"),
    "no arguments": forged("x", args=()),
    "too many arguments": forged("x", args=("x", "y")),
    "arguments that are none": forged("x", args=7),
    "an id that is none": forged("x", args=({"$gt": ""},)),
    "options that are none": forged("x", options=7),
    "an actor that is none": forged("x", actor_name=["journal.sync"]),
}


def test_junk_is_put_aside_and_counted_and_its_neighbours_are_unharmed(stack: Stack) -> None:
    before = stack.counter("_worker", "junk")
    alive = {worker["_id"] for worker in stack.alive()}
    for kind, message in JUNK.items():
        put(stack, f"junk.{kind}", message)
        put_in_front(stack, message or b"")
    events, _ = post_times(stack, 10)
    all_complete(stack, events, within=5)
    eventually(
        lambda: stack.counter("_worker", "junk") - before >= 2 * len(JUNK),
        "all junk is counted",
    )
    assert alive == {worker["_id"] for worker in stack.alive()}


FORGED: dict[str, dict[str, object]] = {
    "keyword arguments": {"kwargs": {"x": 1}},
    "a time to come": {"options": {"eta": 4_102_444_800_000}},
    "no time": {"options": {"time_limit": 1}},
    "retries used up": {"options": {"retries": 99, "max_retries": 0}},
    "another callback": {"options": {"on_retry_exhausted": "nobody"}},
    "a pipeline": {"options": {"pipe_target": {"actor_name": "dead_letter"}}},
    "another type": {"actor_name": "journal.async"},
}


def test_a_forged_message_changes_nothing_about_its_job(stack: Stack) -> None:
    pids = [worker["pid"] for worker in stack.alive()]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    payload = {"duration_ms": 20, "fail_times": 1}
    events = {kind: stack.api.post("journal.sync", dict(payload)) for kind in FORGED}
    # Each that was waiting when it was stopped is given one by Redis.
    least = len(events) - len(pids)
    eventually(lambda: len(hints_in(stack.redis_client)) >= least, "all are sent")
    stack.redis_client.flushall()
    for kind, event in events.items():
        put(stack, message_id_of(event), forged(event, **FORGED[kind]))
        put_in_front(stack, forged_hint(event, **FORGED[kind]))
    for pid in pids:
        send(pid, signal.SIGCONT)
    for kind, event in events.items():
        seen = stack.api.wait_final(event)
        assert [e["outcome"] for e in seen["history"]] == ["error", "completed"], kind


def test_a_message_for_a_job_that_does_not_exist_is_dropped(stack: Stack) -> None:
    ghost = "01900000-0000-7000-8000-000000000000"
    put(stack, message_id_of(ghost), forged(ghost))
    put_in_front(stack, forged_hint(ghost))
    events, _ = post_times(stack, 3)
    all_complete(stack, events, within=5)
    eventually(lambda: not stack.redis_client.exists("dramatiq:default.msgs"), "it is gone")
    eventually(lambda: not hints_in(stack.redis_client), "it is gone")
    assert stack.journal.of(ghost) == []
