"""Writes outcomes together: one bulk write, then one round trip to Redis, for all that has ended.

The order is the promise: first MongoDB has the outcome, then anybody is told of it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

from service.crash import crash_point
from service.errors import StoreUnavailable
from service.job import (
    FINAL,
    AttemptResult,
    JobStatus,
    Outcome,
    Transition,
    delay_after,
    transition_after,
    unstorable,
)
from service.queue.broker import FINISHED_CHANNEL, PulseBroker
from service.store import Counters, JobStore
from service.worker.finishing.finisher import finish
from service.worker.holding.in_flight import InFlight
from service.worker.holding.job import InFlightJob

_log = logging.getLogger(__name__)
_MOST = 500
_FEW, _PACE_SECONDS = 100, 0.015
_RETRY_SECONDS = (0.1, 2.0)

_Ended = tuple[InFlightJob, Transition]


@dataclass(frozen=True, slots=True)
class Finished:
    """A job whose outcome is written."""

    job: InFlightJob
    transition: Transition


class Committer(threading.Thread):
    """Takes attempt results from any thread, in order; `after(finished)` is told what stands in
    MongoDB."""

    def __init__(
        self,
        store: JobStore,
        counters: Counters,
        broker: PulseBroker,
        in_flight: InFlight,
        after: Callable[[Sequence[Finished]], None],
    ) -> None:
        super().__init__(name="committer", daemon=True)
        self._store, self._counters, self._broker = store, counters, broker
        self._in_flight, self._after = in_flight, after
        self._rng = random.Random()
        self._pause = _RETRY_SECONDS[0]
        self._ended: deque[tuple[InFlightJob, AttemptResult]] = deque()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._stopped = False
        self._written_at = float("-inf")
        """Monotonic time at which the last write began."""

    def put(self, job: InFlightJob, attempt_result: AttemptResult) -> None:
        """Hands over the result of an attempt. Of several the first one counts."""
        self._in_flight.free_place(job, attempt_result.result_bytes)
        self._idle.clear()
        self._ended.append((job, attempt_result))
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Waits until all that was handed over is written; whether it came to that in time."""
        return self._idle.wait(seconds)

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    def run(self) -> None:
        while not self._stopped:
            self._wake.wait()
            self._wake.clear()
            while self._ended:
                self._wait_for_more()
                self._commit(self._take())
            self._idle.set()
            if self._ended:
                self._idle.clear()
                self._wake.set()

    def _wait_for_more(self) -> None:
        """Where one write follows another, a few outcomes wait for others that are still to come:
        each write costs a round trip and the disk, however few they are. What comes alone is
        written at once."""
        left = self._written_at + _PACE_SECONDS - time.monotonic()
        more_come = len(self._in_flight) > len(self._ended) and not self._stopped
        if left > 0 and more_come and len(self._ended) < _FEW:
            time.sleep(left)
        self._written_at = time.monotonic()

    def _take(self) -> list[_Ended]:
        """The next batch. Two claims of one job, as after a freeze, are never in one: what was
        fenced off is told by the job's id."""
        batch: list[_Ended] = []
        ids: set[str] = set()
        while self._ended and len(batch) < _MOST and self._ended[0][0].job.id not in ids:
            job, attempt_result = self._ended.popleft()
            if job.settled:
                continue
            job.settled = True
            ids.add(job.job.id)
            batch.append((job, self._transition(job, attempt_result)))
        return batch

    def _transition(self, held: InFlightJob, attempt_result: AttemptResult) -> Transition:
        job, delay_ms = held.job, 0
        if attempt_result.outcome is not Outcome.COMPLETED:
            delay_ms = delay_after(job, attempt_result, held.type.backoff, self._rng)
        job.cancel_requested = job.cancel_requested or held.cancelled
        return transition_after(job, attempt_result, delay_ms)

    def _commit(self, batch: list[_Ended]) -> None:
        """Its caller keeps no reference to the batch: it may be all that the process holds, and
        would stay beside what is claimed next."""
        if not batch:
            return
        crash_point("worker.before_commit")
        written = self._finish(batch)
        self._in_flight.remove(job for job, _ in batch)
        self._tell_redis(batch, written)
        crash_point("worker.after_ack")
        try:
            self._after(written)
        except Exception:
            _log.exception("what follows from an outcome is left to the sweep")

    def _finish(self, batch: Sequence[_Ended]) -> list[Finished]:
        """What stands in MongoDB afterwards. It waits for MongoDB, but not at the process's end."""
        self._pause = _RETRY_SECONDS[0]
        standing = finish(
            self._store,
            self._counters,
            [(job.job, transition) for job, transition in batch],
            count_fenced_as="fenced",
            unavailable=self._is_worth_waiting,
            instead=unstorable,
        )
        by_id = {job.job.id: job for job, _ in batch}
        return [Finished(by_id[written.id], transition) for written, transition in standing]

    def _is_worth_waiting(self, error: StoreUnavailable, jobs: int) -> bool:
        if self._stopped:
            _log.error("%d outcomes could not be written: %s", jobs, error)
            return False
        _log.warning("outcomes wait for MongoDB: %s", error)
        time.sleep(self._rng.uniform(self._pause / 2, self._pause))
        self._pause = min(2 * self._pause, _RETRY_SECONDS[1])
        return True

    def _tell_redis(self, batch: Sequence[_Ended], written: Sequence[Finished]) -> None:
        """Wakes who waits for a result, and offers what was given back to other workers."""
        finals = [one.job.job.id for one in written if one.transition.status in FINAL]
        released = [one.job.job.hint for one in written if _is_given_back(one.transition)]
        try:
            if finals:
                self._broker.client.publish(FINISHED_CHANNEL, ",".join(finals))
            if released:
                self._broker.enqueue_many(released)
        except redis.RedisError as error:
            # Who waits for a result looks by himself, and the sweep dispatches what has no hint.
            _log.warning("Redis was not told of %d outcomes: %s", len(batch), error)


def _is_given_back(transition: Transition) -> bool:
    given_back = transition.outcome in (Outcome.UNSTARTED, Outcome.RELEASED)
    return given_back and transition.status is JobStatus.PENDING
