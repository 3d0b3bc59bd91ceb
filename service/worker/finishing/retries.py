"""Lets Dramatiq's `Retries` do its part, now that MongoDB has the outcome."""

from __future__ import annotations

from collections.abc import Sequence

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Retries

from service.clock import ServerClock
from service.job import FINAL, JobStatus
from service.queue.broker import PulseBroker
from service.queue.letters import bundled
from service.queue.messages import hint_message
from service.worker.finishing.committer import Finished


class RetriesBridge:
    """Redelivers after the backoff, or calls the dead-letter actor: what follows from a batch of
    outcomes goes out together."""

    def __init__(self, broker: PulseBroker, clock: ServerClock) -> None:
        self._broker, self._clock = broker, clock

    def follow_up(self, written: Sequence[Finished]) -> None:
        """Raises `redis.RedisError`: then the sweep sends what didn't go out."""
        with self._broker.outbox.gathering() as gathered:
            for finished in written:
                if (exception := self._failure(finished)) is not None:
                    self._pass_on(finished, exception)
        self._broker.outbox.send_later([(m, delay) for m, delay in gathered if delay is not None])
        letters = [message for message, delay in gathered if delay is None]
        if letters:
            self._broker.outbox.send_together(bundled(letters))

    def _failure(self, finished: Finished) -> Exception | None:
        """What `Retries` should take the end of the run for, if it concerns it."""
        transition = finished.transition
        if transition.error is None or not transition.charged:
            return None
        if transition.status is JobStatus.PENDING and transition.next_attempt_at is not None:
            wait = transition.next_attempt_at - self._clock.now()
            return dramatiq.Retry(delay=max(1, int(wait.total_seconds() * 1000)))
        return RuntimeError(transition.error["message"]) if transition.status in FINAL else None

    def _pass_on(self, finished: Finished, exception: Exception) -> None:
        message = MessageProxy(hint_message(finished.job.job.hint))
        for middleware in self._broker.middleware:
            if isinstance(middleware, Retries):
                middleware.after_process_message(  # type: ignore[no-untyped-call]
                    self._broker, message, exception=exception
                )
