"""The table of a worker process's beats: each comes by itself, whatever becomes of the others."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import StoreUnavailable
from service.store import WorkerStore
from service.worker.process import WorkerProcess
from tests.contract.worker_process import hold, run_beat
from tests.factories import NOW, eventually, make_worker


def raises(*_: Any, **__: Any) -> Any:
    raise StoreUnavailable("as asked")


def hold_for_long(process: WorkerProcess) -> Any:
    """A job that its client wants to stop; one that has just begun would not be asked about."""
    held = hold(process)
    held.since -= 1.0
    process.store.requests.cancel(held.job.id, NOW)
    return held


def test_each_beat_has_a_name_of_its_own(process: WorkerProcess) -> None:
    names = [beat.name for beat in process.beats()]
    assert len(names) == len(set(names))


def test_an_error_in_one_beat_leaves_all_others_running(
    process: WorkerProcess, workers: WorkerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancellations can't be asked for: neighbours and suspects are seen, the lease is renewed."""
    hold_for_long(process)
    asked: list[int] = []
    monkeypatch.setattr(
        process.store.held, "cancel_requests", lambda *_: asked.append(1) or raises()
    )
    monkeypatch.setattr(process.store.waiting, "suspects", lambda *_: [("an id", 1)])
    workers.beat(make_worker("0 first"), processing=0)
    renewed = process._lease.renewed
    process.start_beats()
    assert eventually(lambda: asked)
    assert eventually(lambda: process._supply.position == (1, 2))
    assert eventually(process._supply.suspects_wait.is_set)
    assert eventually(lambda: process._lease.renewed > renewed)


@pytest.mark.parametrize("broken", ["seen_from", "suspects", "claims_of"])
def test_a_cancellation_arrives_whatever_else_cannot_be_asked(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    owners = [process._stores.workers, process.store.waiting, process.store.held]
    (owner,) = [owner for owner in owners if hasattr(owner, broken)]
    monkeypatch.setattr(owner, broken, raises)
    process._supply.doubt()
    held = hold_for_long(process)
    process.start_beats()
    assert eventually(lambda: held.cancelled)


def test_a_round_of_all_beats_reads_the_list_of_workers_once(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = process._stores.workers._read

    def counted(*arguments: Any) -> Any:
        reads.append(1)
        return read(*arguments)

    monkeypatch.setattr(process._stores.workers, "_read", counted)
    for beat in process.beats():
        run_beat(process, beat.name)
    assert len(reads) == 1


def test_a_process_that_holds_nothing_asks_for_no_cancellation(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(process.store.held, "cancel_requests", lambda *_: asked.append(1))
    run_beat(process, "cancellations")
    assert asked == []
