"""The checker catches what it should: bugs are planted, and a short run must show each of them."""

from __future__ import annotations

import pytest

from tests.faults import scenarios
from tests.faults.planted import BUGS
from tests.faults.scenarios import Scenario
from tests.faults.stack import Stack
from tests.faults.trial import trial

DRAIN_SECONDS = 4.0
CAUGHT: dict[str, tuple[Scenario, set[str]]] = {
    "no fence": (
        scenarios.a_worker_is_frozen_beyond_its_lease,
        {"duplicated", "regressed"},
    ),
    "hints forgotten": (scenarios.nothing_happens, {"stuck"}),
    "never poured": (scenarios.many_come_at_once, {"stuck"}),
    "a turn skips a job": (scenarios.many_come_at_once, {"stuck"}),
    "no sweep": (scenarios.a_worker_is_killed, {"stuck"}),
    "ack first": (scenarios.a_worker_is_killed_right_after_its_work, {"stuck"}),
    "accepted before the write": (scenarios.the_web_is_killed, {"lost"}),
    "terminal overwrite": (
        scenarios.a_final_event_is_cancelled_and_retried,
        {"regressed"},
    ),
    "claim without guard": (scenarios.messages_come_tenfold, {"duplicated"}),
    "retry without budget": (scenarios.events_fail, {"over budget"}),
    "failed at the first error": (scenarios.events_fail, {"unexplained"}),
    "keys ignored": (scenarios.posts_are_repeated, {"duplicated"}),
    "giving back charges": (scenarios.a_worker_is_stopped, {"over budget"}),
    "giving back loses": (scenarios.a_worker_is_stopped, {"stuck"}),
    "rescue of the living": (scenarios.nothing_happens, {"unexplained"}),
    "result written twice": (scenarios.nothing_happens, {"phantom", "regressed"}),
    "counted twice": (scenarios.events_fail, {"miscounted"}),
    "not counted": (scenarios.posts_are_repeated, {"miscounted"}),
    "stale reads": (scenarios.a_final_event_is_cancelled_and_retried, {"regressed"}),
    "history forgotten": (scenarios.events_fail, {"regressed", "over budget"}),
}
"""Each bug, the run that shows it, and what the checker must call it (one of these at least)."""
QUICKLY_SEEN = {
    "accepted before the write",
    "claim without guard",
    "counted twice",
    "history forgotten",
    "keys ignored",
    "not counted",
    "stale reads",
    "terminal overwrite",
}
"""These are in every run of the tests; the others, and the runs without a bug, in the long one."""
ALL_SCENARIOS = sorted({scenario for scenario, _ in CAUGHT.values()}, key=lambda s: s.__name__)


def test_every_bug_that_can_be_planted_is_in_the_table() -> None:
    assert set(CAUGHT) == set(BUGS)
    assert len(CAUGHT) >= 10


@pytest.mark.parametrize(
    "bug",
    [pytest.param(bug, marks=() if bug in QUICKLY_SEEN else pytest.mark.soak) for bug in CAUGHT],
)
def test_a_planted_bug_is_caught(stack: Stack, bug: str) -> None:
    scenario, expected = CAUGHT[bug]
    with trial(stack, bug) as run:
        scenario(run)
        run.drain(DRAIN_SECONDS)
        report = run.judge()
    assert report.verdict == "red", bug
    assert report.kinds & expected, str(report)


@pytest.mark.soak
@pytest.mark.parametrize("scenario", ALL_SCENARIOS, ids=lambda s: s.__name__)
def test_the_same_run_without_a_bug_is_green(stack: Stack, scenario: Scenario) -> None:
    with trial(stack) as run:
        scenario(run)
        run.drain(15)
        report = run.judge()
    assert report.verdict == "green", str(report)
