"""MongoDB dies, hangs, crawls, and loses its replies."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.processes import send
from tests.faults.stack import QUICK, Stack
from tests.faults.waiting import eventually

ANSWER_WITHIN = int(QUICK["MONGODB_TIMEOUT_MS"]) / 1000 + 2
"""Longest wait for a 503, in seconds: MongoDB's time-out and a little."""


def refused_or_accepted(stack: Stack, seconds: float) -> tuple[list[str], int]:
    """Posts for so long: the ids of what was accepted, and how many posts were refused. Every
    answer comes in time, and is honest."""
    events, refused = [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        answer = stack.api.try_post("journal.sync")
        assert time.monotonic() - began < ANSWER_WITHIN
        if answer.status_code == 202:
            events.append(answer.json()["id"])
        else:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) > 0
            refused += 1
        time.sleep(0.02)  # a client's pace, not a wait
    return events, refused


def test_what_was_accepted_survives_a_killed_mongodb_and_posts_are_accepted_again(
    stack: Stack,
) -> None:
    slow = [stack.api.post("journal.sync", {"duration_ms": 1_000}) for _ in range(10)]
    fast = [stack.api.post("journal.sync") for _ in range(20)]
    stack.mongo.kill()
    _, refused = refused_or_accepted(stack, 1.0)
    assert refused > 0
    assert stack.api.http.get("/health").status_code == 503
    assert stack.api.http.get("/health/live").status_code == 200
    stack.mongo.start()
    after = eventually(lambda: stack.api.post("journal.sync"), "a post is accepted", within=12)
    for event in [*slow, *fast, after]:
        seen = stack.api.wait_final(event, within=20)
        assert seen["status"] == "completed"
        assert sum(e["outcome"] == "completed" for e in seen["history"]) == 1


def test_a_post_to_a_hung_mongodb_is_refused_in_time_and_what_was_accepted_completes(
    stack: Stack,
) -> None:
    before = [stack.api.post("journal.sync", {"duration_ms": 500}) for _ in range(10)]
    stack.mongo.freeze()
    began = time.monotonic()
    answer = stack.api.try_post("journal.sync", {"n": 1}, key="hung")
    assert (answer.status_code, time.monotonic() - began < ANSWER_WITHIN) == (503, True)
    again = stack.api.try_post("journal.sync", {"n": 1}, key="hung")
    assert again.status_code == 503
    stack.mongo.thaw()
    event = eventually(
        lambda: stack.api.post("journal.sync", {"n": 1}, key="hung"), "it is accepted", within=12
    )
    for one in [*before, event]:
        assert stack.api.wait_final(one, within=20)["status"] == "completed"
    assert stack.database["jobs"].count_documents({"idempotency_key": "hung"}) == 1


def test_everything_completes_while_mongodb_is_slow(stack: Stack) -> None:
    stack.mongo_proxy.delay(0.15)
    events, refused = refused_or_accepted(stack, 2.0)
    assert (refused, len(events) > 2) == (0, True)
    for event in events:
        seen = stack.api.wait_final(event, within=20)
        assert (seen["status"], seen["attempts"]) == ("completed", 1)


def test_a_post_whose_reply_from_mongodb_is_lost_makes_one_event(stack: Stack) -> None:
    for n in range(5):
        lost = stack.mongo_proxy.replies_lost
        stack.mongo_proxy.lose_reply(b"insert\0")
        answer = stack.api.try_post("journal.sync", {"n": n}, key=f"key {n}".replace(" ", "-"))
        eventually(lambda n=lost: stack.mongo_proxy.replies_lost > n, "a reply got lost")
        assert answer.status_code in (202, 503)
        found = list(stack.database["jobs"].find({"payload.n": n}))
        assert len(found) == 1
        stack.api.wait_final(found[0]["_id"])
        assert len(stack.journal.ends(found[0]["_id"])) == 1


@pytest.mark.parametrize(
    ("request_bytes", "count"),
    [(b"findAndModify\0", 1), (b"claim\0", 20), (b"history\0", 20), (b"heartbeat_at", 5)],
    ids=["claim of one", "claim of many", "outcome", "heartbeat"],
)
def test_jobs_complete_once_though_the_reply_to_a_workers_write_is_lost(
    stack: Stack, request_bytes: bytes, count: int
) -> None:
    pids = [worker["pid"] for worker in stack.alive()]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    events = [stack.api.post("journal.async") for _ in range(count)]
    lost = stack.mongo_proxy.replies_lost
    stack.mongo_proxy.lose_reply(request_bytes)
    for pid in pids:
        send(pid, signal.SIGCONT)
    eventually(lambda: stack.mongo_proxy.replies_lost > lost, "a reply got lost")
    for event in events:
        seen = stack.api.wait_final(event, within=10)
        assert [e["outcome"] for e in seen["history"]] == ["completed"]
        assert seen["attempts"] == 1


def test_a_claim_that_a_hung_mongodb_carries_out_late_strands_no_job(stack: Stack) -> None:
    pids = [worker["pid"] for worker in stack.alive()]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    events = [stack.api.post("journal.async") for _ in range(20)]
    stack.mongo.freeze()
    for pid in pids:
        send(pid, signal.SIGCONT)
    # The claim waits in the hung server's socket until its sender has given up.
    eventually(
        lambda: any(w.says("no jobs can be claimed") for w in stack.workers), "it gave up", within=9
    )
    stack.mongo.thaw()
    for event in events:
        seen = stack.api.wait_final(event, within=15)
        assert sum(e["outcome"] == "completed" for e in seen["history"]) == 1
        assert len(stack.journal.ends(event)) == 1


@pytest.mark.soak
def test_workers_that_start_without_mongodb_wait_and_say_so(stack: Stack) -> None:
    stack.mongo_proxy.refuse()
    worker = stack.add_worker()
    eventually(lambda: worker.says("waiting for MongoDB"), "it says what it waits for")
    assert worker.running
    stack.mongo_proxy.flow()
    stack.wait_workers(3)
    assert stack.remove(worker) == 0
