"""Workers that are killed, stopped and frozen while they work."""

from __future__ import annotations

import signal
import time

import pytest

from tests.factories import NOW, new_job_document
from tests.faults.processes import send
from tests.faults.stack import Stack
from tests.faults.waiting import eventually


def test_a_job_whose_worker_is_killed_again_and_again_runs_again_and_completes(
    stack: Stack,
) -> None:
    event = stack.api.post("journal.sync", {"duration_ms": 600}, max_attempts=10)
    for kill in (1, 2):
        stack.kill_holder(event)
        killed = time.monotonic()
        eventually(lambda n=kill: len(stack.journal.starts(event)) > n, "it runs again", within=10)
        assert time.monotonic() - killed < 10
    seen = stack.api.wait_final(event)
    assert seen["status"] == "completed"
    assert [entry["outcome"] for entry in seen["history"]] == ["crash", "crash", "completed"]
    assert seen["attempts"] == 3


def test_all_jobs_of_a_killed_worker_complete_once(stack: Stack) -> None:
    events = [stack.api.post("journal.async", {"duration_ms": 400}) for _ in range(40)]
    stack.kill_holder(events[-1])
    for event in events:
        seen = stack.api.wait_final(event, within=20)
        assert (seen["status"], len(stack.journal.ends(event))) == ("completed", 1)


@pytest.mark.parametrize(
    "point",
    [
        "worker.after_fetch",
        pytest.param("worker.after_claim", marks=pytest.mark.soak),
        "worker.before_commit",
        "worker.after_commit",
    ],
)
def test_a_worker_that_dies_at_any_point_loses_nothing(stack: Stack, point: str) -> None:
    with stack.only_workers(1, CRASH_POINT=point) as [worker]:
        event = stack.api.post("journal.sync")
        eventually(lambda: worker.starts > 1, "the worker died at its crash point")
        seen = stack.api.wait_final(event, within=20)
    assert seen["status"] == "completed"
    assert sum(entry["outcome"] == "completed" for entry in seen["history"]) == 1


def test_dead_letters_that_a_dying_worker_never_sent_arrive_once_each(stack: Stack) -> None:
    with stack.only_workers(1, CRASH_POINT="worker.after_ack") as [worker]:
        events = [stack.api.post("journal.async", {"reject": True}) for _ in range(20)]
        eventually(lambda: worker.starts > 1, "the worker died at its crash point")
        for event in events:
            assert stack.api.wait_final(event, within=20)["status"] == "failed"
        eventually(
            lambda: all("dead_lettered_at" in stack.document(event) for event in events),
            "all of them arrive",
            within=30,
        )
        logged = [line for line in worker.log.read_text().splitlines() if "failed for good" in line]
    for event in events:
        assert sum(event in line for line in logged) == 1


def test_what_a_rescue_left_when_its_leader_died_is_not_taken_for_the_killer(stack: Stack) -> None:
    """Alone with its process, a job in its last attempt would fail."""
    with stack.only_workers(0):
        held = [
            new_job_document(type="journal.async", max_attempts=1)
            | {"status": "processing", "worker": "dead", "started_at": NOW}
            | {"attempts": 1, "claims": 1, "claim": "of the dead"}
            for _ in range(501)
        ]
        stack.database["jobs"].insert_many(held)
        worker = stack.add_worker(CRASH_POINT="sweep.after_chunk")
        eventually(lambda: worker.starts > 1, "the leader died at its crash point")
        stack.wait_idle()
    assert stack.database["jobs"].count_documents({"status": "completed"}) == 501


def test_another_worker_leads_the_sweep_soon_after_its_leader_was_killed(stack: Stack) -> None:
    def leader() -> str:
        lease = stack.database["leases"].find_one({"_id": "sweep"}) or {}
        return str(lease.get("holder"))

    alive = {worker["_id"]: worker["pid"] for worker in stack.alive()}
    first = eventually(lambda: leader() if leader() in alive else None, "somebody leads")
    send(alive[first], signal.SIGKILL)
    eventually(lambda: leader() not in {first, "None"}, "another one leads", within=10)


def test_a_stopping_worker_gives_back_what_it_has_not_started_and_charges_nothing(
    stack: Stack,
) -> None:
    with stack.only_workers(1, WORKER_THREADS="1", SHUTDOWN_GRACE_SECONDS="5") as [worker]:
        running = stack.api.post("journal.sync", {"duration_ms": 1_000})
        stack.wait_held(running)
        waiting = [stack.api.post("journal.sync") for _ in range(5)]
        stack.add_worker()
        stack.wait_workers(2)
        assert stack.remove(worker, 10) == 0
        for event in [running, *waiting]:
            seen = stack.api.wait_final(event)
            assert [e["outcome"] for e in seen["history"]] == ["completed"]
            assert seen["attempts"] == 1


def test_a_job_that_outlasts_the_grace_of_a_stopping_worker_runs_elsewhere_at_no_charge(
    stack: Stack,
) -> None:
    event = stack.api.post("journal.async", {"duration_ms": 3_000})
    worker = stack.worker_with(stack.wait_held(event))
    worker.terminate()
    eventually(lambda: len(stack.journal.starts(event)) == 2, "it runs elsewhere", within=6)
    seen = stack.api.wait_final(event)
    assert [e["outcome"] for e in seen["history"]] == ["released", "completed"]
    assert seen["attempts"] == 1


def test_a_worker_stops_within_its_grace_under_load(stack: Stack) -> None:
    events = [stack.api.post("journal.sync", {"duration_ms": 50}) for _ in range(150)]
    worker = stack.workers[0]
    worker.terminate()
    started = time.monotonic()
    eventually(lambda: worker.starts > 1 or not worker.running, "it has stopped", within=8)
    assert time.monotonic() - started < 6
    for event in events:
        seen = stack.api.wait_final(event, within=20)
        assert (seen["status"], seen["attempts"]) == ("completed", 1)


def test_the_late_outcome_of_a_worker_frozen_beyond_its_lease_is_fenced_off_and_counted(
    stack: Stack,
) -> None:
    event = stack.api.post("journal.async", {"duration_ms": 1_000})
    pid = stack.wait_held(event)
    send(pid, signal.SIGSTOP)
    seen = stack.api.wait_final(event, within=15)
    assert [e["outcome"] for e in seen["history"]] == ["crash", "completed"]
    before = stack.counter("_worker", "fenced")
    send(pid, signal.SIGCONT)
    eventually(lambda: stack.counter("_worker", "fenced") == before + 1, "it is counted")
    assert stack.api.get(event) == seen
