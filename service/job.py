"""The job: its statuses, and the pure decisions on what becomes of it.

    pending ──claim──▶ processing ──complete──▶ completed
       ▲  ▲               │  │ │
       │  └─retry/release─┘  │ └──reject, budget spent, third crash──▶ failed
       │                     └──cancelled──▶ cancelled ◀──cancel── pending
       └──────────── retry (by a client) ── failed, cancelled

Nothing here reads a clock or a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from service.backoff import Backoff

DOCUMENT_VERSION = 1
CRASH_LIMIT = 3
"""A job that was running alone when its process died, this often, is what kills it."""

LONGEST_WAIT_MS = 366 * 86_400_000


class JobStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.PROCESSING, JobStatus.CANCELLED}),
    JobStatus.PROCESSING: FINAL | {JobStatus.PENDING},
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.PENDING}),
    JobStatus.CANCELLED: frozenset({JobStatus.PENDING}),
}


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Outcome(StrEnum):
    """How one attempt ended. `UNSTARTED` leaves no entry in the history."""

    COMPLETED = "completed"
    ERROR = "error"
    TIMEOUT = "timeout"
    CRASH = "crash"
    REJECTED = "rejected"
    RELEASED = "released"
    CANCELLED = "cancelled"
    UNSTARTED = "unstarted"


_UNCHARGED = frozenset({Outcome.RELEASED, Outcome.UNSTARTED})


@dataclass(frozen=True, slots=True)
class Hint:
    """What a message says of a job: that it is ready, and where it belongs. Never its content."""

    job_id: str
    type: str
    queue: str
    priority: str


@dataclass(slots=True)
class Job:
    """A claimed job, as much of its document as running it takes."""

    id: str
    type: str
    queue: str
    priority: str
    payload: dict[str, Any]
    """Empty where it wasn't read, because only what becomes of the job matters."""
    attempts: int
    max_attempts: int
    claims: int
    """How often it was claimed. No fence: where a primary's last writes are taken back, two claims
    may have the same number."""
    claim: str
    """The fencing token: jobs that were claimed together share it, no two claims of one job do."""
    time_limit_ms: int
    created_at: datetime
    next_attempt_at: datetime | None
    started_at: datetime
    worker: str
    company: int | None = None
    """At most so many jobs may be held beside each other with this one; None: no suspect."""
    deaths: int = 0
    """How many processes died while they held it."""
    cancel_requested: bool = False
    request_id: str | None = None
    traceparent: str | None = None
    size: int | None = None
    """Bytes of memory that it takes, about; None where its payload wasn't read."""

    @property
    def hint(self) -> Hint:
        return Hint(self.id, self.type, self.queue, self.priority)


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How a handler's run ended, before anything was decided about the job."""

    outcome: Outcome
    finished_at: datetime
    result: Any = None
    message: str | None = None
    delay_ms: int | None = None
    """The wait that the handler asked for; None: the type's backoff says."""
    started_at: datetime | None = None
    """When the handler itself began; None where it never did."""
    result_bytes: int = 0
    """Of the result as JSON; 0: nobody knows."""


@dataclass(frozen=True, slots=True)
class Transition:
    """What becomes of the job: the next status and all that its update writes."""

    status: JobStatus
    outcome: Outcome
    at: datetime
    result: Any = None
    error: dict[str, str] | None = None
    next_attempt_at: datetime | None = None
    charged: bool = True
    """Whether the attempt counts; a job given back pays nothing."""
    company: int | None = None
    died: bool = False
    """Whether a process died over it."""
    started_at: datetime | None = None
    result_bytes: int = 0
    """Of the result as JSON; 0: nobody knows."""

    @property
    def in_history(self) -> bool:
        return self.outcome is not Outcome.UNSTARTED


def transition_after(job: Job, attempt_result: AttemptResult, delay_ms: int) -> Transition:
    """Decides about a job whose attempt has ended. `delay_ms`: the wait before a next attempt."""
    at = attempt_result.finished_at
    if attempt_result.outcome in _UNCHARGED:
        return _give_back(job, attempt_result)
    if attempt_result.outcome is Outcome.COMPLETED:
        return Transition(
            JobStatus.COMPLETED,
            attempt_result.outcome,
            at,
            attempt_result.result,
            started_at=attempt_result.started_at,
            result_bytes=attempt_result.result_bytes,
        )
    if attempt_result.outcome is Outcome.CANCELLED or job.cancel_requested:
        return Transition(
            JobStatus.CANCELLED, attempt_result.outcome, at, started_at=attempt_result.started_at
        )
    error = {"reason": str(attempt_result.outcome), "message": attempt_result.message or ""}
    if attempt_result.outcome is Outcome.REJECTED or job.attempts >= job.max_attempts:
        return Transition(
            JobStatus.FAILED,
            attempt_result.outcome,
            at,
            error=error,
            started_at=attempt_result.started_at,
        )
    return Transition(
        JobStatus.PENDING,
        attempt_result.outcome,
        at,
        error=error,
        next_attempt_at=at + timedelta(milliseconds=delay_ms),
        started_at=attempt_result.started_at,
    )


def _give_back(job: Job, attempt_result: AttemptResult) -> Transition:
    status = JobStatus.CANCELLED if job.cancel_requested else JobStatus.PENDING
    return Transition(
        status,
        attempt_result.outcome,
        attempt_result.finished_at,
        next_attempt_at=None
        if status in FINAL
        else job.next_attempt_at or attempt_result.finished_at,
        charged=False,
        company=job.company,
        started_at=attempt_result.started_at,
    )


def unstorable(transition: Transition) -> Transition:
    """The transition in place of one that MongoDB can't hold (an integer beyond 64 bits, say)."""
    error = {"reason": str(Outcome.REJECTED), "message": "the result can't be stored as BSON"}
    return Transition(JobStatus.FAILED, Outcome.REJECTED, transition.at, error=error)


def delay_after(job: Job, attempt_result: AttemptResult, backoff: Backoff, rng: Any) -> int:
    """The wait before the next attempt, in milliseconds: the handler's wish (at most a year), else
    the backoff."""
    if attempt_result.delay_ms is not None:
        return min(max(0, attempt_result.delay_ms), LONGEST_WAIT_MS)
    return backoff.delay_ms(job.attempts, rng)


@dataclass(frozen=True, slots=True)
class Stranded:
    """A job that is `processing` under a worker that is dead."""

    job: Job
    crashes: int
    """Crashes already in its history since its budget was last granted."""
    held: int
    """How many jobs the dead worker held when its rescue began, this one included."""


def transition_after_death(stranded: Stranded, now: datetime) -> Transition:
    """Decides about a job whose worker died: whom to blame, and what to risk next.

    Alone with its process, a job is to blame: its third crash, or its last attempt, fails it. In
    company nobody knows. A first death is taken for bad luck (a deploy, a lack of memory): the
    attempt counts as a crash, unless it was the last one, and the job runs again like any other.
    From the second on it costs nothing, and the job may be held with at most an eighth as many
    others: the company shrinks with each death until the killer is alone, and no job ever fails
    for what ran beside it.
    """
    job, alone = stranded.job, stranded.held == 1
    if job.cancel_requested:
        return Transition(JobStatus.CANCELLED, Outcome.CRASH, now)
    spent = job.attempts >= job.max_attempts
    message = f"the worker process died while it held {stranded.held} job(s), this one among them"
    error = {"reason": str(Outcome.CRASH), "message": message}
    if alone and (spent or stranded.crashes + 1 >= CRASH_LIMIT):
        return Transition(JobStatus.FAILED, Outcome.CRASH, now, error=error)
    first = job.deaths == 0
    charged = alone or (first and not spent)
    company = 1 if alone else None if first else max(1, stranded.held // 8)
    return Transition(
        JobStatus.PENDING,
        Outcome.CRASH if charged else Outcome.UNSTARTED,
        now,
        error=error,
        next_attempt_at=now,
        charged=charged,
        company=company,
        died=True,
    )


@dataclass(slots=True)
class NewEvent:
    """A valid event on its way into the store."""

    type: str
    payload: dict[str, Any]
    queue: str
    max_attempts: int
    time_limit_ms: int
    priority: str = Priority.NORMAL
    run_at: datetime | None = None
    delay_ms: int | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
