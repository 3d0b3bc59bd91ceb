"""The store against a model of it in plain Python, by random walks on real MongoDB.

A worker may be slow, frozen or dead: every claim that was ever given out may come back with an
outcome at any time, and the model says which of them still counts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pymongo.database import Database

from service.errors import KeyReused, NotAllowedNow
from service.job import CRASH_LIMIT, Job, Outcome, transition_after, transition_after_death
from service.metrics.counts import observe
from service.store import Accepted, BulkChanges, Counters, Deltas, Filter, JobStore
from tests.factories import NOW, attempt_result, eventually, new_job_document

WORKERS = ("w1", "w2", "w3")
OUTCOMES = [o for o in Outcome if o is not Outcome.CRASH]
FREE = (Outcome.RELEASED, Outcome.UNSTARTED)
OPEN = ("pending", "processing")
MOST_JOBS = 5  # few, so that a walk goes far with each


@dataclass
class Modelled:
    """What should be known of one job."""

    id: str
    budget: int
    max_attempts: int
    due: datetime | None
    key: str | None
    status: str = "pending"
    attempts: int = 0
    claims: int = 0
    claim: str | None = None
    """The fencing token of the claim that stands."""
    holder: str | None = None
    cancel_requested: bool = False
    company: int | None = None
    deaths: int = 0
    crashes: int = 0
    outcomes: list[str] = field(default_factory=list)
    final: dict[str, Any] | None = None
    """The document as it was when it became final: nothing may change in it."""

    @property
    def spent(self) -> bool:
        return self.attempts >= self.max_attempts

    def ends(self, status: str) -> None:
        self.status, self.holder, self.due = status, None, None

    def waits(self, until: datetime) -> None:
        self.status, self.holder, self.due = "pending", None, until


class StoreModel(RuleBasedStateMachine):
    """One step is one call of the store, and the same in the model."""

    def __init__(self, database: Database[Any]) -> None:
        super().__init__()
        self.database = database
        for name in ("jobs", "counters"):
            self.database[name].delete_many({})
        self.store = JobStore(self.database)
        self.bulk = BulkChanges(self.database)
        self.jobs: dict[str, Modelled] = {}
        self.given_out: list[Job] = []
        self.totals = {"completed": 0, "cancelled": 0, "failed": 0}
        self.now = NOW

    def teardown(self) -> None:
        """What was counted of outcomes is what they made of the jobs."""
        counters = Counters(self.database)

        def found() -> dict[str, int]:
            read = counters.read().get("email", {})
            failed = sum(read.get("failed", {}).values())
            return {"failed": failed} | {n: read.get(n, 0) for n in ("completed", "cancelled")}

        assert eventually(lambda: found() == self.totals), (found(), self.totals)

    # what a step is about

    def some_job(self, data: st.DataObject, *statuses: str) -> Modelled:
        """One of these statuses, if there is one. Drawn by number: ids are random, and a walk must
        be repeatable."""
        jobs = self.of(*statuses)
        return jobs[data.draw(st.integers(0, len(jobs) - 1))]

    def some_ids(self, data: st.DataObject) -> list[str]:
        """Some that wait, if there are any, and perhaps one more."""
        jobs = self.of("pending")
        numbers = st.integers(0, len(jobs) - 1)
        drawn = data.draw(st.lists(numbers, min_size=1, max_size=3, unique=True))
        other = self.some_job(data)
        return list(dict.fromkeys([*(jobs[number].id for number in drawn), other.id]))

    def of(self, *statuses: str) -> list[Modelled]:
        jobs = list(self.jobs.values())
        return [job for job in jobs if job.status in statuses] or jobs

    def some_claims(self, data: st.DataObject, of: list[Job]) -> list[Job]:
        """One a job."""
        numbers = st.integers(0, len(of) - 1)
        drawn = st.lists(numbers, min_size=1, max_size=3, unique_by=lambda n: of[n].id)
        return [of[number] for number in data.draw(drawn)]

    @property
    def current(self) -> list[Job]:
        """The claims whose outcome would count."""
        return [claim for claim in self.given_out if self.is_current(claim)]

    def is_current(self, claim: Job) -> bool:
        job = self.jobs[claim.id]
        return job.status == "processing" and job.claim == claim.claim

    def count(self, deltas: Deltas) -> None:
        Counters(self.database).add(deltas)

    # time

    @precondition(lambda self: any(self.is_ahead(job) for job in self.jobs.values()))
    @rule()
    def time_passes(self) -> None:
        self.now += timedelta(seconds=6)

    def is_ahead(self, job: Modelled) -> bool:
        return job.due is not None and job.due > self.now

    # accept

    @initialize(max_attempts=st.lists(st.integers(1, 3), min_size=2, max_size=3))
    def begin(self, max_attempts: list[int]) -> None:
        for most in max_attempts:
            self.accept_one(most, None, None, "f")

    @precondition(lambda self: len(self.jobs) < MOST_JOBS)
    @rule(
        max_attempts=st.integers(1, 3),
        delay_ms=st.sampled_from([None, 10_000]),
        key=st.sampled_from([None, "a", "b"]),
        fingerprint=st.sampled_from(["f", "g"]),
    )
    def accept(self, **event: Any) -> None:
        self.accept_one(**event)

    def accept_one(
        self, max_attempts: int, delay_ms: int | None, key: str | None, fingerprint: str
    ) -> None:
        document = new_job_document(
            at=self.now,
            max_attempts=max_attempts,
            delay_ms=delay_ms,
            idempotency_key=key,
            fingerprint=fingerprint if key else None,
        )
        (answer,) = self.store.new_jobs.accept([document])
        first = next((j for j in self.jobs.values() if key and j.key == key), None)
        if first is None:
            assert isinstance(answer, Accepted)
            assert not answer.replayed
            due = self.now + timedelta(milliseconds=delay_ms or 0)
            job = Modelled(document["_id"], max_attempts, max_attempts, due, key)
            self.jobs[job.id] = job
        elif self.store.requests.get(first.id)["fingerprint"] == fingerprint:
            assert isinstance(answer, Accepted)
            assert answer.replayed
            assert answer.document["_id"] == first.id
        else:
            assert isinstance(answer, KeyReused)

    # claim

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def claim(self, data: st.DataObject, worker: str) -> None:
        ids = self.some_ids(data)
        self.claim_with(self.store.claims.claim, ids, worker, suspects=False)
        self.claim_with(self.store.claims.claim_suspects, ids, worker, suspects=True)

    def claim_with(self, method: Any, ids: list[str], worker: str, *, suspects: bool) -> None:
        won = method(ids, worker, self.now)
        expected = [
            i
            for i in ids
            if (job := self.jobs[i]).status == "pending"
            and job.due is not None
            and job.due <= self.now + timedelta(milliseconds=100)
            and (job.company is not None) is suspects
        ]
        assert sorted(job.id for job in won) == sorted(expected)
        for claim in sorted(won, key=lambda claim: ids.index(claim.id)):
            job = self.jobs[claim.id]
            job.status, job.holder = "processing", worker
            job.attempts += 1
            job.claims += 1
            job.claim = claim.claim
            assert (claim.attempts, claim.claims) == (job.attempts, job.claims)
            self.given_out.append(claim)

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def claim_is_taken_back(self, data: st.DataObject) -> None:
        """As by a primary that comes back: what it wrote and no other had is gone."""
        (claim, *_) = self.some_claims(data, self.current)
        job = self.jobs[claim.id]
        self.database["jobs"].update_one(
            {"_id": job.id},
            {
                "$set": {"status": "pending"},
                "$inc": {"attempts": -1, "claims": -1},
                "$unset": {"claim": "", "worker": "", "cancel_requested": ""},
            },
        )
        job.attempts, job.claims, job.cancel_requested = job.attempts - 1, job.claims - 1, False
        job.waits(claim.next_attempt_at or self.now)

    # the end of an attempt, in time or late

    @precondition(lambda self: self.current)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(OUTCOMES),
        delay_ms=st.sampled_from([0, 5_000]),
        notices_cancel=st.booleans(),
        sent_twice=st.booleans(),
    )
    def finish(self, data: st.DataObject, outcome: Outcome, **how: Any) -> None:
        self.finish_claims(self.some_claims(data, self.current), outcome, **how)

    @precondition(lambda self: self.given_out)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), notices_cancel=st.booleans())
    def finish_some_late(self, data: st.DataObject, outcome: Outcome, **how: Any) -> None:
        """Beside some in time."""
        self.finish_claims(self.some_claims(data, self.given_out), outcome, **how)

    def finish_claims(
        self,
        claims: list[Job],
        outcome: Outcome,
        *,
        delay_ms: int = 0,
        notices_cancel: bool = False,
        sent_twice: bool = False,
    ) -> None:
        self.now += timedelta(milliseconds=1)  # no two outcomes are the same one sent again
        batch = []
        for claim in claims:
            if notices_cancel and self.is_current(claim):
                claim.cancel_requested = self.jobs[claim.id].cancel_requested
            end = attempt_result(outcome, finished_at=self.now, result="r", message="m")
            batch.append((claim, transition_after(claim, end, delay_ms)))
        current = {claim.id for claim in claims if self.is_current(claim)}
        fenced = self.store.outcomes.finish(batch)
        for claim in claims:
            if claim.id in current:
                assert claim.id not in fenced
                self.ended(claim, outcome, delay_ms)
            elif outcome is not Outcome.UNSTARTED:
                assert claim.id in fenced, "a late outcome went unnoticed"
        if sent_twice and current == {claim.id for claim in claims}:
            assert self.store.outcomes.finish(batch) == set()
        deltas = Deltas()
        for claim, transition in batch:
            if claim.id in current:
                observe(deltas, claim, transition)
        self.count(deltas)

    def ended(self, claim: Job, outcome: Outcome, delay_ms: int) -> None:
        job = self.jobs[claim.id]
        if outcome is not Outcome.UNSTARTED:
            job.outcomes.append(outcome)
        if outcome in FREE:
            job.attempts -= 1
        if outcome is Outcome.COMPLETED:
            job.ends("completed")
            self.totals["completed"] += 1
        elif outcome is Outcome.CANCELLED or claim.cancel_requested:
            job.ends("cancelled")
            self.totals["cancelled"] += 1
        elif outcome in FREE:
            assert claim.next_attempt_at is not None
            job.waits(claim.next_attempt_at)
        elif outcome is Outcome.REJECTED or job.spent:
            job.ends("failed")
            self.totals["failed"] += 1
        else:
            job.waits(self.now + timedelta(milliseconds=delay_ms))

    # the death of a worker

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def rescue(self, data: st.DataObject) -> None:
        (some_claim, *_) = self.some_claims(data, self.current)
        worker = some_claim.worker
        stranded = self.store.held.stranded(worker)
        held = [j for j in self.jobs.values() if j.holder == worker]
        assert sorted(s.job.id for s in stranded) == sorted(j.id for j in held)
        batch = [(s.job, transition_after_death(s, self.now)) for s in stranded]
        assert self.store.outcomes.finish(batch) == set()
        deltas = Deltas()
        for job, transition in batch:
            observe(deltas, job, transition)
            self.died(self.jobs[job.id], len(held))
        self.count(deltas)

    def died(self, job: Modelled, held: int) -> None:
        if job.cancel_requested:
            job.outcomes.append("crash")
            job.ends("cancelled")
            self.totals["cancelled"] += 1
            return
        alone = held == 1
        if alone and (job.spent or job.crashes + 1 >= CRASH_LIMIT):
            job.outcomes.append("crash")
            job.ends("failed")
            self.totals["failed"] += 1
            return
        if alone or (job.deaths == 0 and not job.spent):
            job.outcomes.append("crash")
            job.crashes += 1
        else:
            job.attempts -= 1
        if alone:
            job.company = 1
        elif job.deaths:
            job.company = max(1, held // 8)
        job.deaths += 1
        job.waits(self.now)

    # what a client asks

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.some_job(data)
        before = job.status
        try:
            document, made = self.store.requests.cancel(job.id, self.now)
        except NotAllowedNow:
            assert before in ("completed", "failed")
            return
        assert made == (before == "pending")
        if before == "pending":
            job.ends("cancelled")
            self.totals["cancelled"] += 1
            deltas = Deltas()
            deltas.add("email", "cancelled")
            self.count(deltas)
        elif before == "processing":
            job.cancel_requested = True
        assert document["status"] == job.status

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), by_filter=st.sampled_from([None, None, None, "failed", "completed"]))
    def retry(self, data: st.DataObject, by_filter: str | None) -> None:
        if by_filter is not None:
            self.retry_by_filter(by_filter)
            return
        job = self.some_job(data, "completed", "failed", "cancelled")
        try:
            self.store.requests.retry(job.id, self.now)
        except NotAllowedNow:
            assert job.status not in ("failed", "cancelled")
        else:
            assert job.status in ("failed", "cancelled")
            self.granted(job)

    def retry_by_filter(self, status: str) -> None:
        until = time.monotonic() + 20
        made = list(self.bulk.retry(Filter(status=status), lambda: self.now, until))
        expected = [j for j in self.jobs.values() if j.status == status == "failed"]
        assert sorted(d["_id"] for chunk in made for d in chunk.jobs) == sorted(
            j.id for j in expected
        )
        for job in expected:
            self.granted(job)

    def granted(self, job: Modelled) -> None:
        job.max_attempts += job.budget
        job.cancel_requested, job.company, job.deaths, job.crashes = False, None, 0, 0
        job.final = None
        job.waits(self.now)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def dead_letter_arrives(self, data: st.DataObject) -> None:
        job = self.some_job(data, "failed")
        if self.store.dead_letters.take([job.id], self.now):
            assert job.status == "failed"
            job.final = None  # it says when its letter arrived, and changes in nothing else
            assert self.store.dead_letters.take([job.id], self.now) == []

    # what must hold at all times

    @invariant()
    def all_is_well(self) -> None:
        documents = {d["_id"]: d for d in self.database["jobs"].find()}
        assert documents.keys() == self.jobs.keys()
        for job in self.jobs.values():
            document = documents[job.id]
            self.document_says_what_the_model_says(job, document)
            self.final_job_stays_as_it_is_until_it_is_retried(job, document)
            self.no_budget_is_exceeded_and_nothing_completes_twice(job)
        self.job_is_in_one_place_only()

    def document_says_what_the_model_says(self, job: Modelled, document: dict[str, Any]) -> None:
        held = job.status == "processing"
        found = (
            document["status"],
            document["attempts"],
            document["max_attempts"],
            document["claims"],
            document["worker"] if held else None,
            None if held else document["next_attempt_at"],
            document.get("company"),
            document.get("deaths", 0),
            document.get("cancel_requested", False),
            [entry["outcome"] for entry in document["history"]],
        )
        assert found == (
            job.status,
            job.attempts,
            job.max_attempts,
            job.claims,
            job.holder,
            None if held else job.due,
            job.company,
            job.deaths,
            job.cancel_requested,
            job.outcomes,
        )

    def final_job_stays_as_it_is_until_it_is_retried(
        self, job: Modelled, document: dict[str, Any]
    ) -> None:
        if job.status not in OPEN:
            job.final = job.final or document
            assert document == job.final

    def no_budget_is_exceeded_and_nothing_completes_twice(self, job: Modelled) -> None:
        assert 0 <= job.attempts <= job.max_attempts
        assert job.outcomes.count("completed") <= 1
        tokens = [claim.claim for claim in self.given_out if claim.id == job.id]
        assert len(tokens) == len(set(tokens))

    def job_is_in_one_place_only(self) -> None:
        """It waits, or one claim on it counts, or it is final."""
        due = self.store.waiting.due(["email"], "normal", self.now, limit=1_000)
        waiting = {hint.job_id for hint in due.hints}
        counting = [claim.id for claim in self.current]
        assert len(counting) == len(set(counting))
        for job in self.jobs.values():
            is_due = job.status == "pending" and not self.is_ahead(job)
            assert (job.id in waiting) == is_due
            assert (job.id in counting) == (job.status == "processing")


def test_the_store_does_what_its_model_does(database: Database[Any]) -> None:
    run_state_machine_as_test(
        lambda: StoreModel(database),
        settings=settings(
            max_examples=50,
            stateful_step_count=50,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # add Phase.shrink to debug
            suppress_health_check=list(HealthCheck),
        ),
    )
