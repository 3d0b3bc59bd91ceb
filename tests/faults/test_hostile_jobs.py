"""Jobs that hurt the process they run in."""

from __future__ import annotations

from tests.faults.stack import Stack


def test_a_job_that_kills_its_process_fails_after_three_crashes(stack: Stack) -> None:
    event = stack.api.post("journal.sync", {"die": True})
    seen = stack.api.wait_final(event, within=30)
    assert (seen["status"], seen["error"]["reason"]) == ("failed", "crash")
    assert [entry["outcome"] for entry in seen["history"]] == ["crash"] * 3


def test_jobs_beside_one_that_kills_its_process_all_complete(stack: Stack) -> None:
    killer = stack.api.post("journal.async", {"die": True})
    others = [stack.api.post("journal.async", {"duration_ms": 200}) for _ in range(30)]
    assert stack.api.wait_final(killer, within=45)["error"]["reason"] == "crash"
    for event in others:
        assert stack.api.wait_final(event, within=30)["status"] == "completed"


def test_a_job_that_spins_beyond_its_limit_fails_for_its_time(stack: Stack) -> None:
    event = stack.api.post("journal.sync", {"spin": True}, time_limit_ms=300, max_attempts=1)
    neighbour = stack.api.post("journal.sync", {"duration_ms": 500})
    assert stack.api.wait_final(event)["error"]["reason"] == "timeout"
    assert stack.api.wait_final(neighbour)["status"] == "completed"


def test_a_job_that_sleeps_in_c_beyond_its_limit_fails_and_its_process_is_replaced(
    stack: Stack,
) -> None:
    event = stack.api.post("journal.sync", {"stuck": True}, time_limit_ms=300, max_attempts=1)
    pid = stack.wait_held(event)
    neighbour = stack.api.post("journal.async", {"duration_ms": 4_000})
    assert stack.api.wait_final(event)["error"]["reason"] == "timeout"
    seen = stack.api.wait_final(neighbour, within=20)
    assert (seen["status"], seen["attempts"]) == ("completed", 1)
    stack.wait_workers(2)
    assert pid not in {worker["pid"] for worker in stack.alive()}


def test_a_job_that_eats_all_memory_fails_and_its_process_goes_on(stack: Stack) -> None:
    limit = 400_000  # KiB of address space beyond what the process has anyway
    with stack.only_workers(1, TEST_MORE_MEMORY_KIB=str(limit)):
        event = stack.api.post("journal.sync", {"eat_mb": 4_000}, max_attempts=1)
        seen = stack.api.wait_final(event, within=30)
        assert (seen["status"], seen["error"]["reason"]) == ("failed", "error")
        assert "MemoryError" in seen["error"]["message"]
        after = stack.api.post("journal.sync")
        assert stack.api.wait_final(after)["status"] == "completed"


def test_a_time_limit_that_strikes_as_a_run_fails_loses_nothing(stack: Stack) -> None:
    payload = {"duration_ms": 300, "fail_times": 1}
    events = [
        stack.api.post("journal.sync", dict(payload), time_limit_ms=300 + 4 * n, max_attempts=2)
        for n in range(25)
    ]
    for event in events:
        seen = stack.api.wait_final(event, within=20)
        assert len(seen["history"]) == seen["attempts"] == 2, seen
    after = [stack.api.post("journal.sync", {"duration_ms": 100}) for _ in range(16)]
    for event in after:
        assert stack.api.wait_final(event)["status"] == "completed"
