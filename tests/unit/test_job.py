"""What becomes of a job: the pure decisions."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backoff import Backoff
from service.job import (
    CRASH_LIMIT,
    FINAL,
    TRANSITIONS,
    AttemptResult,
    Job,
    JobStatus,
    Outcome,
    Stranded,
    delay_after,
    transition_after,
    transition_after_death,
    unstorable,
)
from tests.factories import NOW, ahead, attempt_result, make_job, transition

OUTCOMES = [o for o in Outcome if o is not Outcome.CRASH]  # a crash is found by the sweep
FAILURES = [Outcome.ERROR, Outcome.TIMEOUT]


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Any job that a claim can give."""
    max_attempts = draw(st.integers(1, 100))
    return make_job(
        max_attempts=max_attempts,
        attempts=draw(st.integers(1, max_attempts)),
        cancel_requested=draw(st.booleans()),
        company=draw(st.none() | st.integers(1, 300)),
        deaths=draw(st.integers(0, 5)),
    )


@st.composite
def attempt_results(draw: st.DrawFn) -> AttemptResult:
    return attempt_result(
        draw(st.sampled_from(OUTCOMES)),
        result=draw(st.none() | st.integers()),
        message=draw(st.none() | st.text()),
    )


@st.composite
def strandeds(draw: st.DrawFn) -> Stranded:
    job = draw(jobs())
    crashes = draw(st.integers(0, CRASH_LIMIT - 1))
    return Stranded(job, crashes, draw(st.integers(1, 1_000)))


# transition_after


@given(jobs(), attempt_results(), st.integers(0, 10**9))
def test_every_transition_is_a_transition_from_processing(
    job: Job, end: AttemptResult, delay_ms: int
) -> None:
    assert transition_after(job, end, delay_ms).status in TRANSITIONS[JobStatus.PROCESSING]


@given(jobs(), attempt_results(), st.integers(0, 10**9))
def test_a_job_that_may_run_again_has_an_attempt_left(
    job: Job, end: AttemptResult, delay_ms: int
) -> None:
    decided = transition_after(job, end, delay_ms)
    if decided.status is JobStatus.PENDING:
        assert job.attempts - (not decided.charged) < job.max_attempts


@given(jobs(), attempt_results(), st.integers(0, 10**9))
def test_a_job_that_may_run_again_knows_when_and_a_final_one_never_does(
    job: Job, end: AttemptResult, delay_ms: int
) -> None:
    decided = transition_after(job, end, delay_ms)
    assert (decided.next_attempt_at is not None) == (decided.status not in FINAL)


@given(jobs(), attempt_results())
def test_a_job_fails_only_when_rejected_or_out_of_budget(job: Job, end: AttemptResult) -> None:
    decided = transition_after(job, end, 0)
    if decided.status is JobStatus.FAILED:
        assert end.outcome is Outcome.REJECTED or job.attempts == job.max_attempts
        assert decided.error is not None
        assert decided.error["reason"] == end.outcome


@given(jobs(), attempt_results())
def test_a_job_is_cancelled_only_where_that_was_asked_or_its_handler_says_so(
    job: Job, end: AttemptResult
) -> None:
    if transition_after(job, end, 0).status is JobStatus.CANCELLED:
        assert job.cancel_requested or end.outcome is Outcome.CANCELLED


@given(jobs(), attempt_results())
def test_only_what_is_given_back_is_free(job: Job, end: AttemptResult) -> None:
    given_back = end.outcome in (Outcome.RELEASED, Outcome.UNSTARTED)
    assert transition_after(job, end, 0).charged is not given_back


@given(jobs(), attempt_results())
def test_only_a_job_that_completed_has_a_result(job: Job, end: AttemptResult) -> None:
    decided = transition_after(job, end, 0)
    completed = end.outcome is Outcome.COMPLETED
    assert (decided.status is JobStatus.COMPLETED) == completed
    assert decided.result == (end.result if completed else None)


def test_a_result_counts_even_where_a_cancel_came_too_late() -> None:
    job = make_job(cancel_requested=True)
    assert transition(Outcome.COMPLETED, job, result=1).status is JobStatus.COMPLETED


@pytest.mark.parametrize("outcome", FAILURES)
def test_a_failure_waits_for_its_delay(outcome: Outcome) -> None:
    decided = transition_after(make_job(), attempt_result(outcome), delay_ms=1_500)
    assert decided.status is JobStatus.PENDING
    assert decided.next_attempt_at == ahead(1.5)


@pytest.mark.parametrize("outcome", FAILURES)
def test_the_last_failure_of_a_cancelled_job_is_no_failure(outcome: Outcome) -> None:
    job = make_job(attempts=5, cancel_requested=True)
    assert transition(outcome, job).status is JobStatus.CANCELLED


@pytest.mark.parametrize("outcome", [Outcome.RELEASED, Outcome.UNSTARTED])
def test_a_job_given_back_keeps_its_place_in_the_order(outcome: Outcome) -> None:
    due = NOW - timedelta(seconds=9)
    decided = transition(outcome, make_job(next_attempt_at=due, company=3))
    assert decided.next_attempt_at == due
    assert decided.company == 3


@pytest.mark.parametrize("outcome", [Outcome.RELEASED, Outcome.UNSTARTED])
def test_a_job_given_back_is_cancelled_where_that_was_asked(outcome: Outcome) -> None:
    assert transition(outcome, make_job(cancel_requested=True)).status is JobStatus.CANCELLED


def test_an_unstarted_attempt_leaves_no_trace_and_all_others_do() -> None:
    unseen = [o for o in OUTCOMES if not transition(o).in_history]
    assert unseen == [Outcome.UNSTARTED]


def test_an_outcome_that_cannot_be_stored_is_a_rejection() -> None:
    decided = unstorable(transition(Outcome.COMPLETED, result=2**70))
    assert (decided.status, decided.outcome) == (JobStatus.FAILED, Outcome.REJECTED)
    assert decided.result is None


# transition_after_death


@given(strandeds())
def test_every_transition_over_a_stranded_job_is_a_transition_from_processing(s: Stranded) -> None:
    assert transition_after_death(s, NOW).status in TRANSITIONS[JobStatus.PROCESSING]


@given(strandeds())
def test_an_innocent_in_company_never_fails(s: Stranded) -> None:
    if s.held > 1:
        assert transition_after_death(s, NOW).status is not JobStatus.FAILED


@given(strandeds())
def test_a_stranded_job_that_may_run_again_has_an_attempt_left(s: Stranded) -> None:
    decided = transition_after_death(s, NOW)
    if decided.status is JobStatus.PENDING:
        assert s.job.attempts - (not decided.charged) < s.job.max_attempts


@given(strandeds())
def test_a_stranded_job_fails_only_alone_by_its_third_crash_or_its_last_attempt(
    s: Stranded,
) -> None:
    decided = transition_after_death(s, NOW)
    if decided.status is JobStatus.FAILED:
        assert s.held == 1
        assert s.crashes + 1 >= CRASH_LIMIT or s.job.attempts == s.job.max_attempts
        assert decided.error is not None
        assert decided.error["reason"] == "crash"


@given(strandeds())
def test_a_stranded_job_runs_again_at_once(s: Stranded) -> None:
    decided = transition_after_death(s, NOW)
    assert decided.next_attempt_at == (NOW if decided.status is JobStatus.PENDING else None)


@given(strandeds())
def test_what_is_charged_for_a_death_is_in_the_history(s: Stranded) -> None:
    decided = transition_after_death(s, NOW)
    assert decided.charged == decided.in_history


@given(st.integers(2, 2_000), st.integers(1, 100))
def test_a_killer_in_a_crowd_is_found_alone_and_failed(held: int, max_attempts: int) -> None:
    """However many jobs it hides among, and whatever its budget."""
    job = make_job(attempts=0, max_attempts=max_attempts)
    crashes = 0
    for deaths in range(20):
        job.deaths = deaths
        job.attempts += 1
        decided = transition_after_death(Stranded(job, crashes, held), NOW)
        assert job.attempts <= max_attempts
        if decided.status is JobStatus.FAILED:
            assert held == 1
            break
        job.attempts -= not decided.charged
        crashes += decided.outcome is Outcome.CRASH
        job.company = decided.company
        held = min(held, decided.company or held)
    else:
        pytest.fail("never failed")
    assert crashes <= CRASH_LIMIT


@given(strandeds())
def test_the_company_of_a_suspect_shrinks(s: Stranded) -> None:
    decided = transition_after_death(s, NOW)
    if decided.company is not None:
        assert decided.company == 1 or decided.company < s.held


def test_a_first_death_in_company_is_taken_for_bad_luck() -> None:
    decided = transition_after_death(Stranded(make_job(), crashes=0, held=200), NOW)
    assert decided.outcome is Outcome.CRASH
    assert decided.company is None
    assert decided.died


def test_a_stranded_job_that_a_client_cancelled_is_cancelled() -> None:
    stranded = Stranded(make_job(cancel_requested=True, attempts=5), crashes=2, held=1)
    assert transition_after_death(stranded, NOW).status is JobStatus.CANCELLED


# the table


def test_nothing_leaves_completed_and_only_a_retry_leaves_another_final_status() -> None:
    assert TRANSITIONS[JobStatus.COMPLETED] == frozenset()
    for status in (JobStatus.FAILED, JobStatus.CANCELLED):
        assert TRANSITIONS[status] == {JobStatus.PENDING}


def test_the_table_knows_every_status() -> None:
    assert set(TRANSITIONS) == set(JobStatus)


# delay


def test_the_wish_of_a_handler_goes_before_the_backoff() -> None:
    wish = attempt_result(Outcome.ERROR, delay_ms=7)
    assert delay_after(make_job(), wish, Backoff(first_ms=10**6), random.Random(1)) == 7


@given(st.integers(1, 100))
def test_without_a_wish_the_backoff_says(attempts: int) -> None:
    job = make_job(attempts=attempts, max_attempts=100)
    delay = delay_after(job, attempt_result(Outcome.ERROR), Backoff(), random.Random(1))
    assert 0 <= delay <= 300_000


@pytest.mark.parametrize("wish", [-(10**30), -1, 10**18, 10**30])
def test_no_wish_of_a_handler_leaves_the_calendar(wish: int) -> None:
    job, end = make_job(), attempt_result(Outcome.ERROR, delay_ms=wish)
    decided = transition_after(job, end, delay_after(job, end, Backoff(), random.Random(1)))
    assert decided.next_attempt_at is not None
    assert NOW <= decided.next_attempt_at <= NOW + timedelta(days=366)
