"""Makes what tests need, so that a test says only what matters to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import redis
from marshmallow import Schema

from service.catalog import AnyPayload, Catalog, EventType
from service.clock import from_ms, to_ms
from service.ids import new_id
from service.job import AttemptResult, Hint, Job, NewEvent, Outcome, Transition, transition_after
from service.queue.lanes import Lanes
from service.store import JobStore, Worker, WorkerStore
from service.store.documents import new_document
from service.store.new_jobs import Accepted
from service.worker.holding.job import InFlightJob

Answer = TypeVar("Answer")

NOW = from_ms(int(datetime.now(UTC).timestamp() * 1000))
"""One moment for all; near the real time, because MongoDB expires documents by its own clock."""


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def ago(count: float) -> datetime:
    """So many seconds before `NOW`."""
    return NOW - seconds(count)


def ahead(count: float) -> datetime:
    """So many seconds after `NOW`."""
    return NOW + seconds(count)


def eventually(look: Callable[[], Answer], within: float = 5.0) -> Answer:
    """The first true answer of `look`; fails where there is none in so many seconds."""
    deadline = time.monotonic() + within
    while not (answer := look()):
        assert time.monotonic() < deadline, f"still {answer!r} after {within} s"
        time.sleep(0.005)
    return answer


def all_workers(workers: WorkerStore) -> list[dict[str, Any]]:
    """Every worker's document, dead or alive, by id."""
    return list(workers._workers.find(sort=[("_id", 1)]))


# events and jobs


def new_event(**over: Any) -> NewEvent:
    fields: dict[str, Any] = {
        "type": "email",
        "payload": {"to": "a@example.com"},
        "queue": "default",
        "max_attempts": 5,
        "time_limit_ms": 60_000,
    }
    return NewEvent(**(fields | over))


def new_job_document(*, at: datetime = NOW, **event: Any) -> dict[str, Any]:
    """The document of a new event, made at `at`."""
    return new_document(new_event(**event), to_ms(at))


def accept(store: JobStore, *, at: datetime = NOW, **event: Any) -> dict[str, Any]:
    """Puts one new job into the store; its document."""
    (answer,) = store.new_jobs.accept([new_job_document(at=at, **event)])
    assert isinstance(answer, Accepted)
    return answer.document


def accept_many(store: JobStore, count: int, **event: Any) -> list[str]:
    """Puts so many new jobs into the store; their ids, oldest first."""
    documents = [
        new_job_document(at=NOW - timedelta(milliseconds=count - i), **event) for i in range(count)
    ]
    if documents:
        store.new_jobs.accept(documents)
    return [d["_id"] for d in documents]


def claimed(store: JobStore, *, worker: str = "worker-1", at: datetime = NOW, **event: Any) -> Job:
    """Puts one new job into the store and claims it."""
    return claim(store, accept(store, at=at, **event)["_id"], worker=worker, at=at)


def claim(store: JobStore, job_id: str, *, worker: str = "worker-1", at: datetime = NOW) -> Job:
    (job,) = store.claims.claim([job_id], worker, at)
    return job


def finish(
    store: JobStore,
    job: Job,
    outcome: Outcome = Outcome.COMPLETED,
    *,
    at: datetime = NOW,
    delay_ms: int = 0,
    **attempt_result: Any,
) -> bool:
    """Ends a claimed job's attempt as the committer does; whether the outcome counted."""
    transition = transition_after(job, AttemptResult(outcome, at, **attempt_result), delay_ms)
    return store.outcomes.finish([(job, transition)]) == set()


def failed(store: JobStore, *, at: datetime = NOW, **event: Any) -> dict[str, Any]:
    """A job that was rejected."""
    job = claimed(store, at=at, **event)
    assert finish(store, job, Outcome.REJECTED, at=at, message="no")
    return store.requests.get(job.id)


def make_job(**over: Any) -> Job:
    """A claimed job in its first attempt."""
    fields: dict[str, Any] = {
        "id": new_id(to_ms(NOW)),
        "type": "email",
        "queue": "default",
        "priority": "normal",
        "payload": {},
        "attempts": 1,
        "max_attempts": 5,
        "claims": 1,
        "claim": "a-claim",
        "time_limit_ms": 60_000,
        "created_at": NOW,
        "next_attempt_at": NOW,
        "started_at": NOW,
        "worker": "worker-1",
        "size": 400,
    }
    return Job(**(fields | over))


def attempt_result(outcome: Outcome = Outcome.COMPLETED, **over: Any) -> AttemptResult:
    return AttemptResult(outcome, **({"finished_at": NOW} | over))


def transition(
    outcome: Outcome = Outcome.COMPLETED, job: Job | None = None, **over: Any
) -> Transition:
    """What the rules make of an attempt that ended so."""
    return transition_after(job or make_job(), attempt_result(outcome, **over), 0)


def make_hint(**over: Any) -> Hint:
    fields = {"job_id": new_id(to_ms(NOW)), "type": "email", "queue": "default"}
    return Hint(**({"priority": "normal"} | fields | over))


def hints_in(client: redis.Redis) -> list[Hint]:
    """All hints that lie in Redis."""
    return Lanes(client, "dramatiq", 1).all_hints()


def put_hints(client: redis.Redis, hints: Sequence[Hint]) -> None:
    """Puts hints into Redis, however many there are, and wakes who waits."""
    Lanes(client, "dramatiq", 1).give_back(hints, wake=True)


# event types and what a worker holds


def done(_payload: Any, _context: Any) -> None:
    """A handler that has nothing to do."""


async def done_async(_payload: Any, _context: Any) -> None:
    """The same, as a coroutine."""


def make_type(
    name: str = "email",
    handler: Callable[..., Any] = done,
    schema: Schema | None = None,
    **options: Any,
) -> EventType:
    return EventType(name, handler, schema or AnyPayload(), **options)


def make_catalog(types: Sequence[EventType] = ()) -> Catalog:
    catalog = Catalog()
    for event_type in types or [make_type()]:
        catalog.add(event_type)
    return catalog


def make_held(event_type: EventType | None = None, **job: Any) -> InFlightJob:
    """A job as a worker holds it."""
    event_type = event_type or make_type()
    claimed_job = make_job(**({"type": event_type.name, "queue": event_type.queue} | job))
    return InFlightJob(claimed_job, event_type)


def make_worker(worker_id: str = "worker-1", **over: Any) -> Worker:
    fields: dict[str, Any] = {
        "id": worker_id,
        "host": "host",
        "pid": 1,
        "process_space": "here",
        "pid_started": 1,
        "queues": ("default",),
        "threads": 8,
        "version": "1.0.0",
    }
    return Worker(**(fields | over))
