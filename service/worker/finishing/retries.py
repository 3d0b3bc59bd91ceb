"""Lets Dramatiq's `Retries` do its part, now that MongoDB has the outcome."""

from __future__ import annotations

from collections.abc import Sequence

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Retries

from service.clock import ServerClock
from service.job import FINAL, JobStatus
from service.queue.broker import PulseBroker
from service.queue.messages import hint_message
from service.worker.finishing.committer import Finished


class RetriesBridge:
    """Redelivers after the backoff, or calls the dead-letter actor."""

    def __init__(self, broker: PulseBroker, clock: ServerClock) -> None:
        self._broker, self._clock = broker, clock

    def follow_up(self, written: Sequence[Finished]) -> None:
        for finished in written:
            transition = finished.transition
            if transition.error is None or not transition.charged:
                continue
            if transition.status is JobStatus.PENDING and transition.next_attempt_at is not None:
                wait = transition.next_attempt_at - self._clock.now()
                delay_ms = max(1, int(wait.total_seconds() * 1000))
                self._pass_on(finished, dramatiq.Retry(delay=delay_ms))
            elif transition.status in FINAL:
                self._pass_on(finished, RuntimeError(transition.error["message"]))

    def _pass_on(self, finished: Finished, exception: Exception) -> None:
        message = MessageProxy(hint_message(finished.held.job.hint))
        for middleware in self._broker.middleware:
            if isinstance(middleware, Retries):
                middleware.after_process_message(  # type: ignore[no-untyped-call]
                    self._broker, message, exception=exception
                )
