"""What is counted of a job, declared once: both sides write these names, `/metrics` reads them.

A count lives in MongoDB (`Counters`), in the document of its event type:
`received, completed, failed.<reason>, retried, cancelled`, and two histograms, `wait` (seconds from
due to started) and `run` (seconds from started to finished), each `b.<bucket>`, `sum`, `count`.
"""

from __future__ import annotations

from bisect import bisect_left

from service.job import Job, JobStatus, Outcome, Transition
from service.store.counters import Deltas

WAIT_BUCKETS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
)
RUN_BUCKETS = (
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
"""Upper bounds in seconds; one more bucket takes what is above the last."""

WORKER_COUNTS = "_worker"
"""The counters' document for what belongs to no event type: `fenced`, `junk`, `rescued`."""


def observe(deltas: Deltas, job: Job, transition: Transition) -> None:
    """Counts one attempt whose outcome is written."""
    name = job.type
    if transition.status is JobStatus.COMPLETED:
        deltas.add(name, "completed")
    elif transition.status is JobStatus.FAILED:
        deltas.add(name, f"failed.{transition.outcome}")
    elif transition.status is JobStatus.CANCELLED:
        deltas.add(name, "cancelled")
    if not transition.in_history:
        return
    if transition.charged and job.attempts > 1:
        deltas.add(name, "retried")
    if transition.outcome is not Outcome.CRASH:
        _observe_times(deltas, job, transition)


def _observe_times(deltas: Deltas, job: Job, transition: Transition) -> None:
    started = transition.started_at or job.started_at
    due = job.next_attempt_at or job.created_at
    _bucket(deltas, job.type, "wait", WAIT_BUCKETS, (started - due).total_seconds())
    _bucket(deltas, job.type, "run", RUN_BUCKETS, (transition.at - started).total_seconds())


def _bucket(
    deltas: Deltas, document: str, name: str, bounds: tuple[float, ...], seconds: float
) -> None:
    seconds = max(0.0, seconds)
    deltas.add(document, f"{name}.b.{bisect_left(bounds, seconds)}")
    deltas.add(document, f"{name}.sum", seconds)
    deltas.add(document, f"{name}.count")
