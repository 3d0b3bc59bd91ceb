"""Writes outcomes together: one bulk write, then one round trip to Redis, for all that has ended.

The order is the promise: first MongoDB has the outcome, then the message is acked. Whatever dies in
between leaves a message whose job is no longer pending, which is a duplicate and harmless.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
from service.worker.registry import Held, Registry

_log = logging.getLogger(__name__)
_MOST = 500
_RETRY_SECONDS = (0.1, 2.0)

_Ended = tuple[Held, Transition]


@dataclass(frozen=True, slots=True)
class Finished:
    """A job whose outcome is written."""

    held: Held
    transition: Transition


class Committer(threading.Thread):
    """Takes attempt results from any thread, in order; `after(finished)` is told what stands in
    MongoDB."""

    def __init__(
        self,
        store: JobStore,
        counters: Counters,
        broker: PulseBroker,
        registry: Registry,
        after: Callable[[Sequence[Finished]], None],
    ) -> None:
        super().__init__(name="committer", daemon=True)
        self._store, self._counters, self._broker = store, counters, broker
        self._registry, self._after = registry, after
        self._rng = random.Random()
        self._pause = _RETRY_SECONDS[0]
        self._ended: deque[tuple[Held, AttemptResult]] = deque()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._stopped = False

    def put(self, held: Held, attempt_result: AttemptResult) -> None:
        """Hands over the result of an attempt. Of several the first one counts."""
        self._registry.free_place(held, attempt_result.result_bytes)
        self._idle.clear()
        self._ended.append((held, attempt_result))
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
                self._commit(self._take())
            self._idle.set()
            if self._ended:
                self._idle.clear()
                self._wake.set()

    def _take(self) -> list[_Ended]:
        """The next batch. Two claims of one job, as after a freeze, are never in one: what was
        fenced off is told by the job's id."""
        batch: list[_Ended] = []
        ids: set[str] = set()
        while self._ended and len(batch) < _MOST and self._ended[0][0].job.id not in ids:
            held, attempt_result = self._ended.popleft()
            if held.settled:
                continue
            held.settled = True
            ids.add(held.job.id)
            delay_ms = delay_after(held.job, attempt_result, held.type.backoff, self._rng)
            held.job.cancel_requested = held.job.cancel_requested or held.cancelled
            batch.append((held, transition_after(held.job, attempt_result, delay_ms)))
        return batch

    def _commit(self, batch: list[_Ended]) -> None:
        """Its caller keeps no reference to the batch: it may be all that the process holds, and
        would stay beside what is claimed next."""
        if not batch:
            return
        crash_point("worker.before_commit")
        written = self._finish(batch)
        self._registry.remove(held for held, _ in batch)
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
            [(held.job, transition) for held, transition in batch],
            count_fenced_as="fenced",
            unavailable=self._is_worth_waiting,
            instead=unstorable,
        )
        by_id = {held.job.id: held for held, _ in batch}
        return [Finished(by_id[job.id], transition) for job, transition in standing]

    def _is_worth_waiting(self, error: StoreUnavailable, jobs: int) -> bool:
        if self._stopped:
            _log.error("%d outcomes could not be written: %s", jobs, error)
            return False
        _log.warning("outcomes wait for MongoDB: %s", error)
        time.sleep(self._rng.uniform(self._pause / 2, self._pause))
        self._pause = min(2 * self._pause, _RETRY_SECONDS[1])
        return True

    def _tell_redis(self, batch: Sequence[_Ended], written: Sequence[Finished]) -> None:
        """Acks, wakes who waits for a result, and offers what was given back to other workers."""
        finals = [s.held.job.id for s in written if s.transition.status in FINAL]
        released = [s.held.job.hint for s in written if _is_given_back(s.transition)]
        try:
            pipeline = self._broker.client.pipeline(transaction=False)
            self._ack(pipeline, batch)
            if finals:
                pipeline.publish(FINISHED_CHANNEL, ",".join(finals))
            pipeline.execute()
            if released:
                self._broker.enqueue_many(released)
        except redis.RedisError as error:
            # Late acks cost only duplicates, and the sweep dispatches what has no message.
            _log.warning("Redis was not told of %d outcomes: %s", len(batch), error)

    def _ack(self, pipeline: Any, batch: Sequence[_Ended]) -> None:
        keys: dict[tuple[str, bool], list[str | bytes]] = defaultdict(list)
        for held, _ in batch:
            if held.message_key is not None:
                keys[held.message.queue_name, held.popped].append(held.message_key)
        for (queue, popped), ids in keys.items():
            ack = self._broker.forget_many if popped else self._broker.ack_many
            ack(pipeline, queue, ids)


def _is_given_back(transition: Transition) -> bool:
    given_back = transition.outcome in (Outcome.UNSTARTED, Outcome.RELEASED)
    return given_back and transition.status is JobStatus.PENDING
