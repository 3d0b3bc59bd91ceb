"""Documents as the store leaves them, made without a server, for tests of reads alone. That the
store's own are the same is shown on real MongoDB, in tests/reads/test_documents.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
from bson.codec_options import CodecOptions
from pymongo.database import Database

from service.job import FINAL, AttemptResult, Outcome, transition_after
from tests.factories import NOW, make_job, make_worker, new_job_document

Document = dict[str, Any]
_AWARE: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)


def insert(database: Database[Document], documents: Sequence[Document], into: str = "jobs") -> None:
    """Also into mongomock, which would keep what is no BSON, a `StrEnum` for one."""
    database[into].insert_many(
        [bson.decode(bson.encode(document), codec_options=_AWARE) for document in documents]
    )


def processing(*, at: datetime = NOW, worker: str = "worker-1", **event: Any) -> Document:
    """A job in its first attempt."""
    return new_job_document(at=at, **event) | {
        "status": "processing",
        "worker": worker,
        "claim": "0123456789ab-0",
        "started_at": at,
        "updated_at": at,
        "attempts": 1,
        "claims": 1,
    }


def ended(
    outcome: Outcome = Outcome.COMPLETED,
    *,
    began: datetime = NOW,
    at: datetime = NOW,
    result: Any = None,
    message: str = "",
    **event: Any,
) -> Document:
    """A job whose first attempt was its last one."""
    document = processing(at=began, **event)
    del document["claim"]
    transition = transition_after(
        make_job(), AttemptResult(outcome, at, result=result, message=message), 0
    )
    assert transition.status in FINAL
    entry = {
        "attempt": 1,
        "worker": document["worker"],
        "started_at": began,
        "finished_at": at,
        "outcome": outcome.value,
        "error": transition.error,
    }
    final = {
        "status": transition.status.value,
        "updated_at": at,
        "finished_at": at,
        "next_attempt_at": None,
        "result": transition.result,
        "error": transition.error,
        "history": [entry],
    }
    failed = {"dead_letter_due": at} if transition.status == "failed" else {}
    return document | final | failed


def suspect(company: int, **event: Any) -> Document:
    """A job that waits again, because a process died that held it and others, unstarted."""
    document = processing(**event)
    del document["claim"]
    return document | {"status": "pending", "attempts": 0, "company": company}


def cancelled(*, at: datetime = NOW, **event: Any) -> Document:
    """A job that was cancelled before it ran."""
    changed = {"status": "cancelled", "finished_at": at, "updated_at": at}
    return new_job_document(at=at, **event) | changed | {"next_attempt_at": None}


def by_schedule(**event: Any) -> Document:
    """A job that a tick has made, and that somebody has cancelled."""
    return cancelled(**event) | {"schedule": "nightly", "tick_at": NOW - timedelta(seconds=5)}


def of_schedule() -> list[Document]:
    """Schedules: one that is late, one for tonight, one that is paused."""
    ticks = {"late": NOW - timedelta(seconds=60), "nightly": NOW + timedelta(hours=9)}
    return [{"_id": n, "next_run_at": ticks.get(n)} for n in ("nightly", "paused", "late")]


def worker(processing: int = 0, **over: Any) -> Document:
    """A worker's, with a heartbeat of just now."""
    made = make_worker(**over)
    fields = {name: getattr(made, name) for name in made.__slots__ if name != "id"}
    beat = {"processing": processing, "heartbeat_at": datetime.now(UTC), "lanes": True}
    return {"_id": made.id} | fields | {"queues": list(made.queues)} | beat
