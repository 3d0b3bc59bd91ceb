"""The checker itself, on histories made by hand: what it must see, and what it must let pass."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.checker import Needed, check
from tests.faults.history import FAIL, OK, UNKNOWN, Call, Fault, History, Plan
from tests.faults.journal import Effect

EVENT = "event-1"
WORKER = "host-100-abcdef"


def entry(attempt: int = 1, outcome: str = "completed", worker: str = WORKER) -> dict[str, Any]:
    return {"attempt": attempt, "outcome": outcome, "worker": worker}


def document(**changes: Any) -> dict[str, Any]:
    """A job that was run once and completed."""
    return {
        "_id": EVENT,
        "status": "completed",
        "payload": {"n": 1},
        "attempts": 1,
        "max_attempts": 5,
        "result": {"token": "a"},
        "error": None,
        "history": [entry()],
    } | changes


def post(event: str | None = EVENT, outcome: str = OK, **known: Any) -> Call:
    known = {"mark": 1, "began": 0.0, "ended": 1.0} | known
    return Call("post", outcome=outcome, event=event, **known)


def get(at: float, **seen: Any) -> Call:
    return Call("get", at, at + 0.1, OK, 200, EVENT, seen=document(**seen))


def run(
    token: str = "a", at: float = 2.0, until: float | None = 3.0, pid: int = 100
) -> list[Effect]:
    """The effects of one run; without an end where `until` is None."""
    start = Effect("start", EVENT, 1, token, pid, at)
    return [start] if until is None else [start, Effect("end", EVENT, 1, token, pid, until)]


def history(**parts: Any) -> History:
    """One event, posted, run and completed; `parts` take the place of that."""
    usual = {"calls": [post()], "effects": run(), "documents": [document()]}
    return History(**(usual | {"plans": {1: Plan({"n": 1})}} | parts))


def kinds(**parts: Any) -> set[str]:
    return check(history(**parts)).kinds


def test_a_run_in_which_all_went_well_is_green() -> None:
    assert check(history()).verdict == "green"


def test_a_run_that_is_too_small_is_invalid_and_not_green() -> None:
    report = check(history(), Needed(accepted=2, faults=1))
    assert report.verdict == "invalid"
    assert len(report.invalid) == 2
    assert check(History()).verdict == "invalid"


def test_a_run_that_broke_something_is_red_however_small_it_was() -> None:
    assert check(history(documents=[]), Needed(accepted=2)).verdict == "red"


def test_an_accepted_event_that_is_gone_is_lost() -> None:
    assert kinds(documents=[], effects=[]) == {"lost"}


def test_a_get_that_finds_nothing_after_the_202_means_lost() -> None:
    missing = Call("get", 2.0, 2.1, FAIL, 404, EVENT)
    assert kinds(calls=[post(), missing]) == {"lost"}


def test_a_get_that_began_before_the_202_may_find_nothing() -> None:
    missing = Call("get", 0.5, 2.1, FAIL, 404, EVENT)
    assert kinds(calls=[post(), missing]) == set()


def test_an_event_of_unknown_outcome_may_be_there_or_not() -> None:
    unknown = post(event=None, outcome=UNKNOWN)
    assert kinds(calls=[unknown]) == set()
    assert kinds(calls=[unknown], documents=[], effects=[]) == set()


@pytest.mark.parametrize("status", ["pending", "processing"])
def test_an_event_that_is_still_open_after_draining_is_stuck(status: str) -> None:
    assert kinds(documents=[document(status=status, history=[], attempts=0)]) == {"stuck"}


def test_an_event_completed_twice_is_duplicated() -> None:
    twice = document(attempts=2, history=[entry(1), entry(2)])
    assert kinds(documents=[twice]) == {"duplicated"}


def test_two_jobs_for_one_mark_are_duplicated() -> None:
    other = document(_id="event-2")
    second = [Effect(e.what, "event-2", 1, e.token, e.pid, e.at) for e in run()]
    assert kinds(documents=[document(), other], effects=run() + second) == {"duplicated"}


def test_two_answers_to_one_key_with_different_ids_are_duplicated() -> None:
    calls = [post(key="k"), post(event="event-2", key="k")]
    other = document(_id="event-2", payload={"n": 2})
    second = [Effect(e.what, "event-2", 1, e.token, e.pid, e.at) for e in run()]
    found = kinds(
        calls=[*calls, post(event="event-2", mark=2)],
        documents=[document(), other],
        effects=run() + second,
    )
    assert found == {"duplicated"}


def test_a_run_after_a_get_that_saw_it_completed_is_duplicated() -> None:
    assert kinds(calls=[post(), get(4.0)], effects=run() + run("b", 5.0, 6.0)) == {"duplicated"}


def test_a_run_beside_another_one_in_an_unhurt_process_is_duplicated() -> None:
    assert kinds(effects=run(until=4.0) + run("b", 3.0, 3.5)) == {"duplicated"}


def test_a_run_beside_one_in_a_frozen_process_is_no_duplicate() -> None:
    frozen = [Fault("freeze", "worker", 2.5, 3.8, (100,))]
    assert kinds(effects=run(until=4.0) + run("b", 3.0, 3.5), faults=frozen) == set()


def test_two_runs_one_after_the_other_may_happen_where_a_process_died() -> None:
    died = [Fault("kill", "worker", 2.5, 2.5, (100,))]
    crashed = document(attempts=2, history=[entry(1, "crash"), entry(2)], result={"token": "b"})
    effects = run(until=None) + run("b", 3.0, 3.5)
    assert kinds(documents=[crashed], effects=effects, faults=died) == set()


def test_an_event_that_nobody_posted_is_a_phantom() -> None:
    assert kinds(calls=[post(mark=7, event=None, outcome=UNKNOWN)]) == {"phantom"}


def test_an_event_whose_post_was_refused_is_a_phantom() -> None:
    assert kinds(calls=[post(event=None, outcome=FAIL)]) == {"phantom"}


def test_a_result_that_no_run_gave_is_a_phantom() -> None:
    assert kinds(documents=[document(result={"token": "z"})]) == {"phantom"}


def test_an_effect_of_an_event_that_does_not_exist_is_a_phantom() -> None:
    ghost = Effect("start", "ghost", 1, "g", 100, 2.0)
    assert kinds(effects=[*run(), ghost]) == {"phantom"}


def test_a_final_status_that_changed_is_regressed() -> None:
    seen = get(2.0, status="cancelled", result=None, attempts=0, history=[])
    asked = Call("cancel", 1.5, 1.6, OK, 200, EVENT)
    assert kinds(calls=[post(), asked, seen]) == {"regressed"}


def test_a_final_result_that_changed_is_regressed() -> None:
    assert kinds(calls=[post(), get(2.0, result={"token": "b"})]) == {"regressed"}


def test_a_get_that_went_back_from_final_to_open_is_regressed() -> None:
    back = get(4.0, status="processing", result=None)
    assert kinds(calls=[post(), get(3.0), back]) == {"regressed"}


def test_gets_that_overlap_may_be_answered_in_either_order() -> None:
    slow = Call("get", 2.9, 5.0, OK, 200, EVENT, seen=document(status="processing", result=None))
    assert kinds(calls=[post(), get(3.0), slow]) == set()


def test_a_failed_event_may_open_again_where_a_client_asked_for_it() -> None:
    failed = get(2.0, status="failed", result=None, history=[entry(1, "error")])
    again = document(attempts=2, history=[entry(1, "error"), entry(2)])
    retry = Call("retry", 2.5, 2.6, UNKNOWN, None, EVENT)
    assert kinds(calls=[post(), failed, retry], documents=[again]) == set()
    assert kinds(calls=[post(), failed], documents=[again]) == {"regressed"}


def test_a_completed_event_may_never_open_again() -> None:
    retry = Call("retry", 2.5, 2.6, UNKNOWN, None, EVENT)
    back = get(4.0, status="pending", result=None)
    assert kinds(calls=[post(), get(2.0), retry, back]) == {"regressed"}


def test_a_history_that_lost_an_entry_is_regressed() -> None:
    seen = get(2.0, status="pending", result=None, history=[entry(1, "error")], attempts=1)
    assert kinds(calls=[post(), seen]) == {"regressed"}


def test_more_attempts_than_granted_are_over_budget() -> None:
    over = document(
        attempts=3, max_attempts=2, history=[entry(i, "error") for i in (1, 2)] + [entry(3)]
    )
    assert kinds(documents=[over]) == {"over budget"}


def test_an_attempt_that_was_charged_and_not_run_is_over_budget() -> None:
    assert kinds(documents=[document(attempts=2)]) == {"over budget"}


def test_an_attempt_that_was_given_back_is_not_charged() -> None:
    released = document(history=[entry(1, "released"), entry(1)])
    assert kinds(documents=[released]) == set()


def test_a_crash_of_a_process_that_nobody_hurt_is_unexplained() -> None:
    crashed = document(attempts=2, history=[entry(1, "crash"), entry(2)])
    assert kinds(documents=[crashed]) == {"unexplained"}


def test_a_failure_that_nobody_asked_for_is_unexplained() -> None:
    failed = document(
        status="failed", result=None, error={"reason": "timeout"}, history=[entry(1, "timeout")]
    )
    assert kinds(documents=[failed]) == {"unexplained"}


def test_a_cancellation_that_nobody_asked_for_is_unexplained() -> None:
    cancelled = document(status="cancelled", result=None, attempts=0, history=[])
    assert kinds(documents=[cancelled]) == {"unexplained"}


@pytest.mark.parametrize(
    ("counted", "found"), [(0, {"miscounted"}), (2, {"miscounted"}), (1, set())]
)
def test_totals_must_be_right_where_nothing_was_killed(counted: int, found: set[str]) -> None:
    counters = {"journal.sync": {"received": 1, "completed": counted}}
    assert kinds(counters=counters) == found


def test_totals_may_be_too_low_but_not_too_high_where_a_process_was_killed() -> None:
    killed = [Fault("kill", "worker", 5.0, 5.0, (7,))]
    for counted, found in ((0, set()), (2, {"miscounted"})):
        counters = {"journal.sync": {"received": 1, "completed": counted}}
        assert kinds(counters=counters, faults=killed) == found
