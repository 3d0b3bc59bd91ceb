"""Outcomes are written together: what holds up what, and in which order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from service.errors import InvalidEvent, StoreUnavailable
from service.job import Job, JobStatus, Outcome, Transition
from service.store import Deltas
from service.worker.finishing.committer import Committer, Finished
from service.worker.holding.capacity import Capacity
from service.worker.holding.in_flight import InFlight
from service.worker.holding.isolation import Isolation
from service.worker.holding.job import InFlightJob
from tests.factories import NOW, attempt_result, eventually, make_held


class FakeStore:
    """Remembers what it was given; `fail` says what to raise for a batch, if anything."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.batches: list[list[tuple[Job, Transition]]] = []
        self.fenced: set[str] = set()
        self.fail: Callable[[Sequence[tuple[Job, Transition]]], Exception | None] = lambda _: None
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0
        self.outcomes = self

    def finish(self, batch: Sequence[tuple[Job, Transition]]) -> set[str]:
        self.asked += 1
        self.gate.wait(5)
        if (error := self.fail(batch)) is not None:
            raise error
        self.journal.append("written")
        self.batches.append(list(batch))
        return self.fenced & {job.id for job, _ in batch}

    @property
    def written(self) -> dict[str, Transition]:
        return {job.id: transition for batch in self.batches for job, transition in batch}


class FakeCounters:
    def __init__(self) -> None:
        self.total = Deltas()
        self.fail = False

    def add(self, deltas: Deltas) -> None:
        if self.fail:
            raise StoreUnavailable("as asked")
        for document, fields in deltas.by_document.items():
            for name, amount in fields.items():
                self.total.add(document, name, amount)

    def of(self, document: str = "email") -> dict[str, float]:
        fields = self.total.by_document[document]
        return {k: v for k, v in fields.items() if not k.startswith(("wait.", "run."))}


class FakeBroker:
    """Redis as far as the committer needs it."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.offered: list[str] = []
        self.published: list[str] = []
        self.away = False
        self.client = self

    def publish(self, channel: str, text: str) -> None:
        if self.away:
            raise redis.ConnectionError("as asked")
        self.journal.append("announced")
        self.published += text.split(",")

    def enqueue_many(self, hints: Sequence[Any]) -> int:
        self.offered += [hint.job_id for hint in hints]
        return len(hints)


class Bench:
    """A committer, and all around it."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.store, self.counters = FakeStore(self.journal), FakeCounters()
        self.broker = FakeBroker(self.journal)
        self.in_flight = InFlight(Capacity(8, 100), Isolation())
        self.followed: list[Finished] = []
        self.follow: Callable[[Sequence[Finished]], None] = self.followed.extend
        self.committer = Committer(
            self.store,  # type: ignore[arg-type]
            self.counters,  # type: ignore[arg-type]
            self.broker,  # type: ignore[arg-type]
            self.in_flight,
            self._follow,
        )

    def _follow(self, finished: Sequence[Finished]) -> None:
        self.follow(finished)

    def held(self, **job: Any) -> InFlightJob:
        held = make_held(**job)
        self.in_flight.add([held])
        return held

    def end(
        self, held: InFlightJob, outcome: Outcome = Outcome.COMPLETED, **over: Any
    ) -> InFlightJob:
        self.committer.put(held, attempt_result(outcome, **over))
        return held

    def settle(self) -> None:
        assert eventually(lambda: self.committer.flush(0.1) and not len(self.in_flight))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.committer.start()
    yield bench
    bench.store.gate.set()
    bench.committer.stop()
    bench.committer.join(5)
    assert not bench.committer.is_alive()


def poison(job_id: str, error: type[Exception] = InvalidEvent) -> Any:
    """Fails every batch with a result for this job in it."""

    def fail(batch: Sequence[tuple[Job, Transition]]) -> Exception | None:
        bad = any(j.id == job_id and v.status is JobStatus.COMPLETED for j, v in batch)
        return error("as asked") if bad else None

    return fail


# one outcome


def test_an_outcome_is_written_then_announced_counted_and_followed_up(bench: Bench) -> None:
    held = bench.end(bench.held(), result=5)
    bench.settle()
    assert bench.store.written[held.job.id].result == 5
    assert bench.broker.published == [held.job.id]
    assert bench.counters.of() == {"completed": 1}
    assert eventually(lambda: [s.job for s in bench.followed] == [held])


def test_nothing_is_announced_before_it_is_written(bench: Bench) -> None:
    bench.end(bench.held())
    bench.settle()
    assert bench.journal == ["written", "announced"]


def test_of_several_attempt_results_the_first_one_counts(bench: Bench) -> None:
    held = bench.held()
    bench.end(held, Outcome.RELEASED)
    bench.end(held, Outcome.COMPLETED)
    bench.end(held, Outcome.TIMEOUT)
    bench.settle()
    bench.end(held, Outcome.COMPLETED)
    assert bench.committer.flush(5)
    assert [v.outcome for b in bench.store.batches for _, v in b] == [Outcome.RELEASED]
    assert bench.broker.published == []


def test_two_claims_of_one_job_are_never_written_together(bench: Bench) -> None:
    """Of a worker that was frozen: the store tells by the job's id what it fenced off."""
    other, late = bench.held(), bench.held(claim="late")
    right = bench.held(id=late.job.id, claim="right")
    bench.store.gate.clear()
    bench.end(bench.held())
    assert eventually(lambda: bench.store.asked)
    for held in (other, late, right):
        bench.end(held)
    bench.store.gate.set()
    bench.settle()
    written = [[job.claim for job, _ in batch] for batch in bench.store.batches]
    assert written == [["a-claim"], ["a-claim", "late"], ["right"]]


def test_only_final_outcomes_are_announced(bench: Bench) -> None:
    done = bench.end(bench.held())
    bench.end(bench.held(), Outcome.ERROR)
    bench.end(bench.held(), Outcome.UNSTARTED)
    bench.settle()
    assert bench.broker.published == [done.job.id]


@pytest.mark.parametrize("outcome", [Outcome.UNSTARTED, Outcome.RELEASED])
def test_what_is_given_back_is_offered_to_others(bench: Bench, outcome: Outcome) -> None:
    held = bench.end(bench.held(), outcome)
    bench.end(bench.held(), Outcome.ERROR)
    bench.settle()
    assert bench.broker.offered == [held.job.id]


def test_a_cancellation_that_was_noticed_here_counts(bench: Bench) -> None:
    held = bench.held()
    held.cancelled = True
    bench.end(held, Outcome.ERROR)
    bench.settle()
    assert bench.store.written[held.job.id].status is JobStatus.CANCELLED


# many


def test_what_ends_while_a_batch_is_written_is_written_together(bench: Bench) -> None:
    bench.store.gate.clear()
    bench.end(bench.held())
    eventually(lambda: bench.store.asked == 1)
    for _ in range(50):
        bench.end(bench.held())
    bench.store.gate.set()
    bench.settle()
    assert [len(batch) for batch in bench.store.batches] == [1, 50]


@pytest.mark.parametrize(("running", "pauses"), [(0, 0), (1, 1)])
def test_an_outcome_waits_for_others_only_where_more_are_to_come(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, running: int, pauses: int
) -> None:
    bench.end(bench.held())
    bench.settle()
    paused: list[float] = []
    monkeypatch.setattr(bench.committer, "_written_at", time.monotonic() + 60)
    monkeypatch.setattr("service.worker.finishing.committer.time.sleep", paused.append)
    last = bench.held()
    others = [bench.held() for _ in range(running)]
    bench.end(last)
    assert bench.committer.flush(5)
    assert len(paused) == pauses
    for job in others:
        bench.end(job)
    assert bench.committer.flush(5)


def test_a_batch_is_bounded(bench: Bench) -> None:
    bench.store.gate.clear()
    bench.end(bench.held())
    eventually(lambda: bench.store.asked == 1)
    for _ in range(1_200):
        bench.end(bench.held())
    bench.store.gate.set()
    bench.settle()
    assert len(bench.store.written) == 1_201
    assert max(len(batch) for batch in bench.store.batches) <= 500


def test_attempt_results_from_many_threads_are_all_written(bench: Bench) -> None:
    jobs = [[bench.held() for _ in range(100)] for _ in range(8)]
    threads = [
        threading.Thread(target=lambda mine=mine: [bench.end(h) for h in mine]) for mine in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    bench.settle()
    assert len(bench.store.written) == 800


# fenced


def test_a_fenced_outcome_is_counted_as_such_and_nothing_follows(bench: Bench) -> None:
    held = bench.held()
    bench.store.fenced = {held.job.id}
    bench.end(held)
    bench.settle()
    assert bench.counters.of() == {}
    assert bench.counters.of("_worker") == {"fenced": 1}
    assert bench.broker.published == []
    assert bench.followed == []


# what can't be stored


@pytest.mark.parametrize("error", [InvalidEvent, OverflowError, ValueError, RecursionError])
def test_an_outcome_that_cannot_be_stored_fails_its_job_and_no_other(
    bench: Bench, error: type[Exception]
) -> None:
    bench.store.gate.clear()
    bench.end(bench.held())
    eventually(lambda: bench.store.asked == 1)
    bad = bench.held()
    bench.store.fail = poison(bad.job.id, error)
    others = [bench.held() for _ in range(5)]
    for held in [*others[:2], bad, *others[2:]]:
        bench.end(held)
    bench.store.gate.set()
    bench.settle()
    written = bench.store.written
    assert {written[h.job.id].status for h in others} == {JobStatus.COMPLETED}
    assert (written[bad.job.id].status, written[bad.job.id].outcome) == (
        JobStatus.FAILED,
        Outcome.REJECTED,
    )


def test_what_was_written_in_place_of_it_is_what_counts(bench: Bench) -> None:
    bad = bench.held()
    bench.store.fail = poison(bad.job.id)
    bench.end(bad)
    bench.settle()
    assert bench.counters.of() == {"failed.rejected": 1}
    (finished,) = eventually(lambda: bench.followed)
    assert finished.transition.status is JobStatus.FAILED


def test_an_outcome_that_cannot_be_stored_in_any_way_ends_no_thread(bench: Bench) -> None:
    bad = bench.held()
    bench.store.fail = lambda batch: (
        InvalidEvent("never") if any(job.id == bad.job.id for job, _ in batch) else None
    )
    bench.end(bad)
    good = bench.end(bench.held())
    bench.settle()
    assert set(bench.store.written) == {good.job.id}
    assert bench.committer.is_alive()


# servers that are away


def test_outcomes_wait_for_mongodb(bench: Bench) -> None:
    bench.store.fail = lambda _: StoreUnavailable("as asked")
    held = bench.end(bench.held())
    eventually(lambda: bench.store.asked >= 2)
    assert not bench.committer.flush(0)
    assert bench.broker.published == []
    assert len(bench.in_flight) == 1
    bench.store.fail = lambda _: None
    bench.settle()
    assert set(bench.store.written) == {held.job.id}


def test_a_process_that_stops_does_not_wait_for_mongodb_for_ever(bench: Bench) -> None:
    bench.store.fail = lambda _: StoreUnavailable("as asked")
    bench.end(bench.held())
    eventually(lambda: bench.store.asked >= 1)
    bench.committer.stop()
    bench.committer.join(5)
    assert not bench.committer.is_alive()
    assert bench.counters.of() == {}


def test_redis_being_away_holds_up_nothing(bench: Bench) -> None:
    bench.broker.away = True
    held = bench.end(bench.held())
    bench.settle()
    assert set(bench.store.written) == {held.job.id}
    assert eventually(lambda: len(bench.followed) == 1)


def test_counts_that_get_lost_hold_up_nothing(bench: Bench) -> None:
    bench.counters.fail = True
    bench.end(bench.held())
    bench.settle()
    assert eventually(lambda: len(bench.broker.published) == 1)


def test_a_failure_in_what_follows_is_left_to_the_sweep(bench: Bench) -> None:
    def fail(_: Sequence[Finished]) -> None:
        raise RuntimeError("as asked")

    bench.follow = fail
    bench.end(bench.held())
    bench.settle()
    bench.follow = bench.followed.extend
    bench.end(bench.held())
    bench.settle()
    assert eventually(lambda: len(bench.followed) == 1)


# flush


def test_with_nothing_to_write_a_flush_returns_at_once(bench: Bench) -> None:
    assert bench.committer.flush(0)


def test_a_wish_for_a_wait_of_a_thousand_years_is_bounded(bench: Bench) -> None:
    held = bench.end(bench.held(), Outcome.ERROR, delay_ms=10**30)
    bench.settle()
    wait = bench.store.written[held.job.id].next_attempt_at
    assert wait is not None
    assert (wait - NOW).days <= 366
