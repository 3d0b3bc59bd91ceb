"""Finished jobs in number, put straight into MongoDB."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from pymongo import WriteConcern
from pymongo.collection import Collection

from service.job import JobStatus, NewEvent
from service.settings import Settings
from service.store.documents import Retention, new_document

Document = dict[str, Any]
_DAY_MS = 86_400_000
_OLDEST_MS, _NEWEST_MS = 6 * _DAY_MS, 3_600_000  # ago; what is older has expired
_CHUNK = 2_000
_SAMPLE = 1_000
_ERROR = {"reason": "error", "message": "fails as asked"}


def store_finished(collection: Collection[Document], count: int, settings: Settings) -> list[str]:
    """Stores so many finished jobs of the last days; the ids of some of them, spread over all."""
    relaxed = collection.with_options(write_concern=WriteConcern(w=1, j=False))
    now_ms = int(time.time() * 1000)
    step_ms = (_OLDEST_MS - _NEWEST_MS) / count
    retention = Retention(
        settings.retention_completed_seconds or None, settings.retention_failed_seconds or None
    )

    def insert(begin: int) -> list[str]:
        documents = [
            _finished(number, now_ms - _OLDEST_MS + int(number * step_ms), retention)
            for number in range(begin, min(begin + _CHUNK, count))
        ]
        relaxed.insert_many(documents, ordered=False)
        return [d["_id"] for d in documents[:: max(1, count // _SAMPLE)]]

    with ThreadPoolExecutor(2) as pool:  # one makes documents while MongoDB stores the other's
        samples = list(pool.map(insert, range(0, count, _CHUNK)))
    collection.database.client.admin.command("fsync")  # the checkpoint would come in a minute
    return [job_id for sample in samples for job_id in sample]


def _finished(number: int, created_ms: int, retention: Retention) -> Document:
    """Most completed at the first attempt, some at the second, one in fifty failed."""
    failed, retried = number % 50 == 0, number % 10 == 1
    document = new_document(_event(number), created_ms)
    status = JobStatus.FAILED if failed else JobStatus.COMPLETED
    outcomes = ["error"] * 5 if failed else ["error", "completed"] if retried else ["completed"]
    history = _history(f"worker-{number % 7}", document["created_at"], outcomes)
    finished_at = history[-1]["finished_at"]
    return document | {
        "status": status.value,
        "attempts": len(history),
        "claims": len(history),
        "worker": history[-1]["worker"],
        "started_at": history[-1]["started_at"],
        "finished_at": finished_at,
        "updated_at": finished_at,
        "next_attempt_at": None,
        "result": None if failed else document["payload"]["result"],
        "error": _ERROR if failed else None,
        "history": history,
        "expires_at": retention.expires_at(status, finished_at),
        **({"dead_lettered_at": finished_at} if failed else {}),
    }


def _event(number: int) -> NewEvent:
    has_key = number % 10 == 0
    return NewEvent(
        type="simulate",
        payload={"duration_ms": number % 500, "result": {"order": number, "paid": True}},
        queue="default",
        max_attempts=5,
        time_limit_ms=60_000,
        idempotency_key=f"order-{number}" if has_key else None,
        fingerprint=f"{number:032x}" if has_key else None,
        request_id=f"{number:032x}",
    )


def _history(worker: str, created_at: datetime, outcomes: list[str]) -> list[Document]:
    """An attempt for each outcome, each a second longer after the one before."""
    at, history = created_at, list[Document]()
    for attempt, outcome in enumerate(outcomes, 1):
        history.append(
            {
                "attempt": attempt,
                "worker": worker,
                "started_at": at + timedelta(milliseconds=2),
                "finished_at": at + timedelta(milliseconds=5),
                "outcome": outcome,
                "error": _ERROR if outcome == "error" else None,
            }
        )
        at += timedelta(seconds=attempt)
    return history
