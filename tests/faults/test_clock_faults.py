"""Hosts whose clocks are an hour off, or are set while everything runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.faults.stack import EVENT_TYPES, Stack
from tests.faults.waiting import eventually

HOUR = 3_600.0


def skewed(stack: Stack, name: str, seconds: float) -> dict[str, str]:
    """The environment of a process whose clock is off by so much."""
    file = stack.folder / f"skew-{name}"
    file.write_text(str(seconds))
    return {
        "SKEW_FILE": str(file),
        "EVENT_TYPE_MODULES": f"tests.faults.skewed,{EVENT_TYPES}",
    }


@pytest.mark.parametrize(
    "hours",
    [(1, -1), pytest.param((-1, 1), marks=pytest.mark.soak)],
    ids=["the worker ahead", "the web ahead"],
)
def test_a_worker_and_a_web_whose_clocks_are_off_by_an_hour_do_nothing_wrong(
    stack: Stack, hours: tuple[int, int]
) -> None:
    right_worker = stack.workers[0]
    with (
        stack.more_workers(1, **skewed(stack, "worker", hours[0] * HOUR)),
        stack.web(**skewed(stack, "web", hours[1] * HOUR)) as web,
    ):
        api = stack.api_of(web)
        now = datetime.now(UTC)
        event = api.post("journal.async", {"duration_ms": 2_200})
        posted = time.monotonic()
        later = api.post("journal.async", delay_ms=1_500)
        far = api.post("journal.async", delay_ms=1_800_000)
        created = datetime.fromisoformat(api.get(event)["created_at"])
        assert abs(created - now) < timedelta(seconds=2)
        seen = stack.api.wait_final(later, within=10)
        assert 1.4 < time.monotonic() - posted < 6
        assert seen["status"] == "completed"
        seen = stack.api.wait_final(event)
        assert ([e["outcome"] for e in seen["history"]], seen["attempts"]) == (["completed"], 1)
        assert stack.api.get(far)["status"] == "pending"
        # It leads, and looks at the others' heartbeats: nobody is taken for dead.
        stack.kill_worker(right_worker)
        other = api.post("journal.async", {"duration_ms": 500})
        assert stack.api.wait_final(other, within=20)["status"] == "completed"
        stack.database["jobs"].delete_one({"_id": far})


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(HOUR, marks=pytest.mark.soak), -HOUR],
    ids=["ahead", "back"],
)
def test_a_worker_goes_on_when_its_hosts_clock_is_set(stack: Stack, seconds: float) -> None:
    env = skewed(stack, "set", 0)
    with stack.only_workers(1, **env):
        stack.api.wait_final(stack.api.post("journal.sync"))
        running = stack.api.post("journal.async", {"duration_ms": 4_000})
        stack.wait_held(running)
        [worker] = stack.alive()
        (stack.folder / "skew-set").write_text(str(seconds))
        set_at = time.monotonic()

        def beats() -> bool:
            found = stack.database["workers"].find_one({"_id": worker["_id"]}) or worker
            return bool(found["heartbeat_at"] > worker["heartbeat_at"] + timedelta(seconds=3))

        eventually(beats, "it still sends its heartbeat", within=8)
        assert time.monotonic() - set_at < 8
        seen = stack.api.wait_final(running)
        assert [e["outcome"] for e in seen["history"]] == ["completed"]
