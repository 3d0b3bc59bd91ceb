"""The one way out of `processing`: on real MongoDB."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import StoreUnavailable
from service.job import Job, Outcome, Transition, unstorable
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


def unfit(job: Job) -> tuple[Job, Transition]:
    """A transition that BSON can't hold."""
    return job, transition(job=job, result=2**80)


def test_one_that_can_not_be_stored_holds_up_none_of_many_and_each_is_counted_once(
    store: JobStore, counters: Counters
) -> None:
    jobs = [claimed(store) for _ in range(9)]
    batch = [unfit(job) if n in (0, 4) else released(job) for n, job in enumerate(jobs)]
    standing = finish(store, counters, batch, count_as="rescued")
    assert standing == [judged for n, judged in enumerate(batch) if n not in (0, 4)]
    statuses = [store.requests.get(job.id)["status"] for job in jobs]
    assert statuses == [("processing" if n in (0, 4) else "pending") for n in range(9)]
    assert eventually(lambda: counters.read().get("_worker") == {"rescued": 7})


def test_what_is_written_in_place_of_it_stands_and_is_counted(
    store: JobStore, counters: Counters
) -> None:
    good, bad = claimed(store), claimed(store)
    batch = [unfit(bad), (good, transition(job=good))]
    standing = finish(store, counters, batch, instead=unstorable)
    assert standing == [(bad, unstorable(batch[0][1])), batch[1]]
    assert store.requests.get(bad.id)["error"]["reason"] == "rejected"
    assert eventually(lambda: counters.read().get("email", {}).get("failed") == {"rejected": 1})
    assert counters.read()["email"]["completed"] == 1


def test_what_was_taken_away_is_counted_where_that_is_asked_for(
    store: JobStore, counters: Counters
) -> None:
    job, ended = claimed(store), claimed(store)
    store.outcomes.finish([(ended, transition(job=ended))])
    finish(store, counters, [released(ended), released(job)], count_fenced_as="fenced")
    assert eventually(lambda: counters.read().get("_worker") == {"fenced": 1})


def test_where_mongodb_is_away_the_caller_says_whether_it_is_tried_again(
    store: JobStore, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    write = store.outcomes.finish

    def away(_batch: Any) -> Any:
        raise StoreUnavailable("as asked")

    def once_more(_error: StoreUnavailable, jobs: int) -> bool:
        asked.append(jobs)
        if len(asked) == 2:
            monkeypatch.setattr(store.outcomes, "finish", write)
        return True

    batch = [released(claimed(store)) for _ in range(3)]
    monkeypatch.setattr(store.outcomes, "finish", away)
    with pytest.raises(StoreUnavailable):
        finish(store, counters, batch)
    assert finish(store, counters, batch, unavailable=lambda _e, _n: False) == []
    assert finish(store, counters, batch, unavailable=once_more) == batch
    assert asked == [3, 3]
