"""What follows an outcome, and what is told of a run before it ends."""

from __future__ import annotations

import json

import pytest

from service.job import Outcome, transition_after
from service.worker.finishing.committer import Finished
from service.worker.process import WorkerProcess
from tests.contract.worker_process import hold, status
from tests.factories import attempt_result, eventually, hints_in


def test_a_failed_attempt_is_hinted_at_again_after_its_wait(process: WorkerProcess) -> None:
    held = hold(process)
    process._committer.put(
        held, attempt_result(Outcome.ERROR, finished_at=process.clock.now(), delay_ms=50)
    )
    client = process._broker.client
    assert eventually(lambda: hints_in(client))
    assert status(process, held) == ("pending", 1)


def test_a_failed_job_sends_its_dead_letter(process: WorkerProcess) -> None:
    held = hold(process)
    process._committer.put(held, attempt_result(Outcome.REJECTED, finished_at=process.clock.now()))
    client = process._broker.client
    assert eventually(lambda: client.llen("dramatiq:dead_letter") == 1)


def test_jobs_that_fail_together_send_one_dead_letter_for_all(process: WorkerProcess) -> None:
    many = [hold(process) for _ in range(5)]
    settled = [
        Finished(h, transition_after(h.job, attempt_result(Outcome.REJECTED, message="no"), 0))
        for h in many
    ]
    process._retries.follow_up(settled)
    client = process._broker.client
    (kept,) = client.hvals("dramatiq:dead_letter.msgs")  # type: ignore[misc]
    assert json.loads(kept)["args"][0]["args"] == [h.job.id for h in many]


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.CANCELLED])
def test_nothing_follows_any_other_end(process: WorkerProcess, outcome: Outcome) -> None:
    held = hold(process)
    process._committer.put(held, attempt_result(outcome, finished_at=process.clock.now()))
    assert eventually(lambda: status(process, held)[0] == outcome)
    assert process._committer.flush(2)
    assert process._broker.client.keys("dramatiq:*.msgs") == []


def test_progress_is_written_without_keeping_the_handler(process: WorkerProcess) -> None:
    held = hold(process)
    for number in range(100):
        process._progress.put(held, {"done": number})
    assert eventually(
        lambda: process.store.requests.get(held.job.id).get("progress") == {"done": 99}
    )


def test_progress_that_cannot_be_stored_harms_nobody_elses(process: WorkerProcess) -> None:
    bad, good = hold(process), hold(process)
    process._progress.put(bad, 2**63)
    process._progress.put(good, 1)
    assert eventually(lambda: process.store.requests.get(good.job.id).get("progress") == 1)
