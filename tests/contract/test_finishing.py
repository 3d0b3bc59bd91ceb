"""What becomes of claimed jobs that never come to the committer: on real MongoDB."""

from __future__ import annotations

import pytest

from service.errors import StoreUnavailable
from service.job import Job, Outcome, Transition
from service.store import Counters, Deltas, JobStore
from service.worker.finishing.finisher import finish
from tests.factories import claimed, eventually, transition


def released(job: Job) -> tuple[Job, Transition]:
    return job, transition(Outcome.RELEASED, job)


def test_only_what_stands_is_returned_and_counted(store: JobStore, counters: Counters) -> None:
    cancelled, ended, gone = (claimed(store) for _ in range(3))
    store.requests.cancel(cancelled.id, transition().at)
    cancelled.cancel_requested = True
    store.outcomes.finish([(ended, transition(job=ended))])
    batch = [released(job) for job in (cancelled, ended)]
    assert finish(store, counters, batch, count_as="rescued") == batch[:1]
    assert eventually(lambda: len(counters.read()) == 2), counters.read()
    assert counters.read()["_worker"] == {"rescued": 1}
    assert counters.read()["email"]["cancelled"] == 1
    assert store.requests.get(gone.id)["status"] == "processing"


def test_where_nothing_stands_nothing_is_counted(store: JobStore, counters: Counters) -> None:
    job = claimed(store)
    store.outcomes.finish([(job, transition(job=job))])
    assert finish(store, counters, [released(job)], count_as="rescued") == []
    assert counters.read() == {}


def test_transitions_stand_where_they_can_not_be_counted(
    store: JobStore, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_deltas: Deltas) -> None:
        raise StoreUnavailable("as asked")

    monkeypatch.setattr(counters, "add", fail)
    job = claimed(store)
    assert finish(store, counters, [released(job)]) == [released(job)]
    assert store.requests.get(job.id)["status"] == "pending"
