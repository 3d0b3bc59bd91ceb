"""What is counted of an attempt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.job import Job, Outcome, Stranded, Transition, transition_after_death
from service.metrics.counts import RUN_BUCKETS, WAIT_BUCKETS, observe
from service.store import Deltas
from tests.factories import NOW, ahead, make_job, seconds, transition


def counted(job: Job, decided: Transition) -> dict[str, float]:
    deltas = Deltas()
    observe(deltas, job, decided)
    return dict(deltas.by_document.get("email", {}))


def totals(job: Job, decided: Transition) -> dict[str, float]:
    """Without the histograms."""
    return {k: v for k, v in counted(job, decided).items() if not k.startswith(("wait.", "run."))}


@pytest.mark.parametrize(
    ("job", "outcome", "expected"),
    [
        ({}, Outcome.COMPLETED, {"completed": 1}),
        ({"attempts": 2}, Outcome.COMPLETED, {"completed": 1, "retried": 1}),
        ({}, Outcome.ERROR, {}),
        ({"attempts": 2}, Outcome.ERROR, {"retried": 1}),
        ({"attempts": 5}, Outcome.ERROR, {"failed.error": 1, "retried": 1}),
        ({"attempts": 5}, Outcome.TIMEOUT, {"failed.timeout": 1, "retried": 1}),
        ({}, Outcome.REJECTED, {"failed.rejected": 1}),
        ({}, Outcome.CANCELLED, {"cancelled": 1}),
        ({"cancel_requested": True}, Outcome.ERROR, {"cancelled": 1}),
        ({"cancel_requested": True}, Outcome.RELEASED, {"cancelled": 1}),
        ({"cancel_requested": True}, Outcome.UNSTARTED, {"cancelled": 1}),
        ({"attempts": 3}, Outcome.RELEASED, {}),
        ({"attempts": 3}, Outcome.UNSTARTED, {}),
    ],
)
def test_an_attempt_counts_as_what_became_of_its_job(
    job: dict[str, Any], outcome: Outcome, expected: dict[str, float]
) -> None:
    claimed = make_job(**job)
    assert totals(claimed, transition(outcome, claimed)) == expected


def test_a_third_crash_counts_as_a_failure_by_crash() -> None:
    job = make_job(attempts=3)
    decided = transition_after_death(Stranded(job, crashes=2, held=1), NOW)
    assert counted(job, decided) == {"failed.crash": 1, "retried": 1}


def test_what_was_given_back_for_a_death_in_company_counts_as_nothing() -> None:
    job = make_job(attempts=2, deaths=1)
    assert counted(job, transition_after_death(Stranded(job, crashes=1, held=9), NOW)) == {}


def test_waiting_runs_from_due_to_started_and_running_from_there_to_the_end() -> None:
    job = make_job(next_attempt_at=NOW)
    decided = transition(Outcome.COMPLETED, job, started_at=ahead(0.3), finished_at=ahead(0.34))
    found = counted(job, decided)
    assert found["wait.sum"] == pytest.approx(0.3)
    assert found["run.sum"] == pytest.approx(0.04)
    assert found["wait.count"] == found["run.count"] == 1


@given(st.floats(0, 10_000))
def test_a_time_is_counted_in_the_first_bucket_that_holds_it(wait: float) -> None:
    job = make_job(next_attempt_at=NOW - seconds(wait))
    found = counted(job, transition(Outcome.COMPLETED, job, started_at=NOW))
    (bucket,) = (int(k.removeprefix("wait.b.")) for k in found if k.startswith("wait.b."))
    bounds = (*WAIT_BUCKETS, float("inf"))
    exact = seconds(wait).total_seconds()  # whole microseconds
    assert exact <= bounds[bucket]
    assert bucket == 0 or exact > bounds[bucket - 1]


def test_a_clock_that_went_back_counts_no_negative_time() -> None:
    job = make_job(next_attempt_at=ahead(5))
    found = counted(job, transition(Outcome.COMPLETED, job))
    assert found["wait.sum"] == found["run.sum"] == 0


def test_a_crash_has_no_times() -> None:
    job = make_job()
    decided = transition_after_death(Stranded(job, crashes=0, held=1), NOW)
    assert not [k for k in counted(job, decided) if k.startswith(("wait", "run"))]


def test_buckets_ascend() -> None:
    for buckets in (WAIT_BUCKETS, RUN_BUCKETS):
        assert list(buckets) == sorted(set(buckets))


def test_deltas_add_up() -> None:
    deltas = Deltas()
    assert not deltas
    deltas.add("email", "completed")
    deltas.add("email", "completed", 2)
    assert deltas
    assert deltas.by_document["email"]["completed"] == 3
