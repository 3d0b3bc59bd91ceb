"""Schedules while the workers that make their events are killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tests.faults.processes import send
from tests.faults.stack import Stack
from tests.faults.waiting import eventually

EVENT = {"type": "simulate", "payload": {}}
NAMES = [f"every-second-{number}" for number in range(5)]
SECOND = timedelta(seconds=1)


@pytest.fixture
def schedules(stack: Stack) -> Iterator[list[str]]:
    """Some that tick every second, until the test ends."""
    for name in NAMES:
        put(stack, name)
    yield NAMES
    for name in NAMES:
        stack.api.http.delete(f"/schedules/{name}")
    stack.wait_idle()


def put(stack: Stack, name: str, **over: str) -> None:
    body = {"every_seconds": 1, "event": EVENT} | over
    answer = stack.api.http.put(f"/schedules/{name}", json=body)
    assert answer.status_code in (200, 201), answer.text


def made(stack: Stack, name: str) -> list[datetime]:
    """The ticks of the schedule's events that may run, in order."""
    found = stack.database["jobs"].find({"schedule": name, "unconfirmed": {"$exists": False}})
    return sorted(event["tick_at"] for event in found)


def server_time(stack: Stack) -> datetime:
    answer = stack.database.command("hello", codec_options=stack.database.codec_options)
    at: datetime = answer["localTime"]
    return at


def watching(stack: Stack) -> int:
    """How many workers would notice a tick."""
    return sum("watching_since" in worker for worker in stack.alive())


def leader(stack: Stack) -> int:
    """The pid of the worker process that leads."""
    lease = stack.database["leases"].find_one({"_id": "sweep"}) or {}
    pids = {worker["_id"]: int(worker["pid"]) for worker in stack.alive()}
    return pids[str(lease.get("holder"))]


def test_no_tick_is_lost_or_made_twice_while_the_leader_is_killed_again_and_again(
    stack: Stack, schedules: list[str]
) -> None:
    eventually(lambda: all(len(made(stack, name)) > 2 for name in schedules), "they tick")
    for _ in range(3):
        eventually(lambda: watching(stack) == 2, "another one would notice ticks", within=20)
        pid = eventually(lambda: leader(stack), "somebody leads")
        assert send(pid, signal.SIGKILL)
        count = len(made(stack, schedules[0]))
        eventually(
            lambda n=count: all(len(made(stack, name)) > n + 1 for name in schedules),
            "another one makes ticks",
            within=15,
        )
    for name in schedules:
        ticks = made(stack, name)
        steps = {later - tick for tick, later in pairwise(ticks)}
        assert steps == {SECOND}, (name, steps)


@pytest.mark.parametrize(
    "point", ["schedules.after_offer", "schedules.after_choice", "schedules.after_confirm"]
)
def test_a_worker_that_dies_at_any_point_of_a_tick_makes_it_once(
    stack: Stack, schedules: list[str], point: str
) -> None:
    with stack.only_workers(1, CRASH_POINT=f"{point}:3") as [worker]:
        eventually(lambda: worker.starts > 1, "the worker died at its crash point", within=20)
        before = datetime.now(UTC)
        eventually(
            lambda: all(made(stack, name)[-1] > before for name in schedules),
            "they tick again",
            within=20,
        )
        in_doubt = {"unconfirmed": {"$exists": True}}
        eventually(
            lambda: stack.database["jobs"].count_documents(in_doubt) == 0,
            "nothing is in doubt",
            within=30,
        )
    for name in schedules:
        ticks = made(stack, name)
        assert len(ticks) == len(set(ticks))


def test_ticks_while_no_worker_runs_are_one_event_or_none(
    stack: Stack, schedules: list[str]
) -> None:
    one, none = schedules[:2]
    put(stack, none, missed="none")
    with stack.only_workers(0):
        time.sleep(5)
        begun = server_time(stack)
        stack.add_worker()
        eventually(
            lambda: all(made(stack, n)[-1] > begun + 3 * SECOND for n in (one, none)),
            "they tick again",
            within=20,
        )
    afterwards = {"tick_at": {"$lt": begun}, "created_at": {"$gt": begun}}
    count = stack.database["jobs"].count_documents
    assert [count(afterwards | {"schedule": name}) for name in (one, none)] == [1, 0]


def test_a_tick_comes_within_a_second(stack: Stack, schedules: list[str]) -> None:
    eventually(lambda: all(len(made(stack, name)) > 5 for name in schedules), "they tick")
    events = list(stack.database["jobs"].find({"schedule": {"$in": schedules}}))
    late = sorted((e["created_at"] - e["tick_at"]).total_seconds() for e in events)
    print(f"late by {late[len(late) // 2]:.3f} s (median), {late[-1]:.3f} s (most)")
    assert late[len(late) // 2] < 1
