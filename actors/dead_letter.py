"""What follows when a job has failed for good."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import dramatiq

from service.clock import ServerClock
from service.queue.broker import DEAD_LETTER_ACTOR, DEAD_LETTER_QUEUE, PulseBroker
from service.queue.letters import job_ids
from service.store import JobStore

_log = logging.getLogger("pulsequeue.dead_letter")


def declare(broker: PulseBroker, stores: Callable[[], tuple[JobStore, ServerClock]]) -> None:
    """Declares the actor that `Retries` calls when a message's retries are exhausted; jobs that
    failed together come as one letter.

    The document in MongoDB decides, not the message: a letter for a job that isn't failed (any
    more), or whose letter arrived before, changes nothing.
    """

    @dramatiq.actor(
        broker=broker,
        actor_name=DEAD_LETTER_ACTOR,
        queue_name=DEAD_LETTER_QUEUE,
        max_retries=3,
        min_backoff=1_000,
        max_backoff=10_000,
        retry_when=lambda retries, _: retries < 3,
    )
    def dead_letter(message: dict[str, Any], _retries: dict[str, Any]) -> None:
        store, clock = stores()
        for job in store.dead_letters.take(job_ids(message), clock.now()):
            _log.error("job failed for good", extra=_fields(job))


def _fields(job: dict[str, Any]) -> dict[str, Any]:
    error = job.get("error") or {}
    return {
        "event_id": job["_id"],
        "type": job["type"],
        "attempts": job["attempts"],
        "reason": error.get("reason"),
        "error": error.get("message"),
        "request_id": job.get("request_id"),
        "traceparent": job.get("traceparent"),
    }
