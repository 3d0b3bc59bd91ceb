"""The document of a job, as it is stored and as a claim reads it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.clock import from_ms
from service.ids import new_id
from service.job import DOCUMENT_VERSION, Hint, Job, JobStatus, NewEvent, Transition
from service.store.mongo import Document

_NOT_STORED = {"id", "size"}
"""Of a `Job`: `id` is the document's `_id`, `size` is what reading it took."""

CLAIMED_FIELDS = {f.name: 1 for f in dataclasses.fields(Job) if f.name not in _NOT_STORED}

WITHOUT_PAYLOAD = {name: 1 for name in CLAIMED_FIELDS if name != "payload"}


@dataclass(frozen=True, slots=True)
class Retention:
    """How long final jobs are kept, in seconds by status; None: for ever."""

    completed_seconds: int | None = None
    failed_seconds: int | None = None
    cancelled_seconds: int | None = None

    def expires_at(self, status: JobStatus, at: datetime) -> datetime | None:
        seconds: int | None = getattr(self, f"{status}_seconds")
        return None if seconds is None else at + timedelta(seconds=seconds)


def new_document(event: NewEvent, now_ms: int) -> Document:
    """The document of a new job, its `_id` made for this moment (milliseconds since 1970)."""
    now = from_ms(now_ms)
    run_at = event.run_at
    if event.delay_ms:
        run_at = now + timedelta(milliseconds=event.delay_ms)
    document: Document = {
        "_id": new_id(now_ms),
        "v": DOCUMENT_VERSION,
        "type": event.type,
        "payload": event.payload,
        "status": "pending",
        "priority": event.priority,
        "queue": event.queue,
        "attempts": 0,
        "max_attempts": event.max_attempts,
        "budget": event.max_attempts,
        "claims": 0,
        "time_limit_ms": event.time_limit_ms,
        "created_at": now,
        "updated_at": now,
        "run_at": run_at,
        "next_attempt_at": now if run_at is None or run_at < now else run_at,
        "started_at": None,
        "finished_at": None,
        "result": None,
        "error": None,
        "history": [],
    }
    document.update(event.labels)
    if event.request_id is not None:
        document["request_id"] = event.request_id
    if event.traceparent is not None:
        document["traceparent"] = event.traceparent
    if event.idempotency_key is not None:
        document["idempotency_key"] = event.idempotency_key
        document["fingerprint"] = event.fingerprint
    return document


def hint_of(document: Document) -> Hint:
    return Hint(document["_id"], document["type"], document["queue"], document["priority"])


def job_of(document: Document, size: int | None = None) -> Job:
    """`document`: of `CLAIMED_FIELDS`. `size`: bytes of memory, about; None: read without its
    payload."""
    fields = {name: document[name] for name in CLAIMED_FIELDS if name in document}
    fields.setdefault("payload", {})
    return Job(id=document["_id"], size=size, **fields)


def history_entry(job: Job, transition: Transition) -> Document:
    return {
        "attempt": job.attempts,
        "worker": job.worker,
        "started_at": transition.started_at or job.started_at,
        "finished_at": transition.at,
        "outcome": transition.outcome.value,
        "error": transition.error,
    }
