"""What follows an outcome, and what is told of a run before it ends."""

from __future__ import annotations

import pytest

from service.job import Outcome
from service.worker.process import WorkerProcess
from tests.contract.worker_process import hold, status
from tests.factories import ending, eventually


def test_a_failed_attempt_is_hinted_at_again_after_its_wait(process: WorkerProcess) -> None:
    held = hold(process)
    process._committer.put(
        held, ending(Outcome.ERROR, finished_at=process.clock.now(), delay_ms=50)
    )
    client = process._broker.client
    assert eventually(lambda: client.llen("dramatiq:default") == 1)
    assert status(process, held) == ("pending", 1)


def test_a_failed_job_sends_its_dead_letter(process: WorkerProcess) -> None:
    held = hold(process)
    process._committer.put(held, ending(Outcome.REJECTED, finished_at=process.clock.now()))
    client = process._broker.client
    assert eventually(lambda: client.llen("dramatiq:dead_letter") == 1)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.CANCELLED])
def test_nothing_follows_any_other_end(process: WorkerProcess, outcome: Outcome) -> None:
    held = hold(process)
    process._committer.put(held, ending(outcome, finished_at=process.clock.now()))
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
