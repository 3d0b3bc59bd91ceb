"""Lets Dramatiq's `Retries` do its part, now that MongoDB has the outcome."""

from __future__ import annotations

from collections.abc import Sequence

import dramatiq
from dramatiq.middleware import Retries

from service.clock import ServerClock
from service.job import FINAL, JobStatus
from service.queue.broker import PulseBroker
from service.worker.finishing.committer import Settled


class RetriesBridge:
    """Redelivers after the backoff, or calls the dead-letter actor."""

    def __init__(self, broker: PulseBroker, clock: ServerClock) -> None:
        self._broker, self._clock = broker, clock

    def follow_up(self, written: Sequence[Settled]) -> None:
        for settled in written:
            verdict = settled.verdict
            if verdict.error is None or not verdict.charged:
                continue
            if verdict.status is JobStatus.PENDING and verdict.next_attempt_at is not None:
                wait = verdict.next_attempt_at - self._clock.now()
                delay_ms = max(1, int(wait.total_seconds() * 1000))
                self._pass_on(settled, dramatiq.Retry(delay=delay_ms))
            elif verdict.status in FINAL:
                self._pass_on(settled, RuntimeError(verdict.error["message"]))

    def _pass_on(self, settled: Settled, exception: Exception) -> None:
        for middleware in self._broker.middleware:
            if isinstance(middleware, Retries):
                middleware.after_process_message(  # type: ignore[no-untyped-call]
                    self._broker, settled.held.message, exception=exception
                )
