"""Puts right what Redis, a worker or a web process did or lost: plain functions.

Each of them may run twice, or on two hosts at once: all that they do is guarded in MongoDB.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from service.crash import crash_point
from service.errors import StoreUnavailable
from service.job import Hint, JobStatus, Transition, transition_after_death
from service.queue.broker import DEAD_LETTER_QUEUE, PulseBroker
from service.queue.letters import bundled
from service.store import Counters, JobStore, WorkerStore
from service.worker.finishing.finisher import JobTransition, finish

_log = logging.getLogger(__name__)
_DEAD_LETTER_AFTER = timedelta(seconds=5)
_DEAD_LETTERS_MOST = 5_000


def rescue(
    store: JobStore,
    workers: WorkerStore,
    counters: Counters,
    now: datetime,
    *,
    believe_heartbeats: bool = True,
) -> list[Hint]:
    """Takes the jobs of dead workers away from them; hints at those that may run again.

    Holders are read first and workers after: a worker writes its document before its first claim.
    `believe_heartbeats`: whether an old heartbeat means death, or only a missing document does
    (after an outage of MongoDB, when every heartbeat is old).

    Where something can't be rescued, the rest is, and it is tried again the next time.
    """
    hints: list[Hint] = []
    for worker in workers.dead_among(store.held.holders(), believe_heartbeats):
        try:
            for rescued in _rescue_from(worker, store, counters, now):
                hints += [job.hint for job, transition in rescued if _may_run_again(transition)]
        except Exception:
            _log.exception("a dead worker's jobs are not all rescued", extra={"worker": worker})
    return hints


def _rescue_from(
    worker: str, store: JobStore, counters: Counters, now: datetime
) -> Iterator[list[JobTransition]]:
    """What of the worker's jobs is rescued, some hundreds at a time: no command takes longer
    the more it held. How many that were is noted before."""
    store.held.rescues.begin(worker)
    after = ""
    while stranded := store.held.stranded(worker, after=after):
        after = stranded[-1].job.id
        batch = [(s.job, transition_after_death(s, now)) for s in stranded]
        rescued = finish(store, counters, batch, count_as="rescued", unavailable=_leave)
        _log.warning("rescued %d jobs of a dead worker", len(rescued), extra={"worker": worker})
        yield rescued
        crash_point("sweep.after_chunk")
    store.held.rescues.end(worker)


def _leave(error: StoreUnavailable, jobs: int) -> bool:
    _log.warning("%d jobs of a dead worker are left for now: %s", jobs, error)
    return False


def _may_run_again(transition: Transition) -> bool:
    """Whether just anybody may; suspects are looked for by themselves."""
    return transition.status is JobStatus.PENDING and transition.company is None


def send_dead_letters(store: JobStore, broker: PulseBroker, actor: str, now: datetime) -> int:
    """Sends again the dead letters that never arrived; how many. None while some still wait in
    Redis, so that they don't pile up there where nobody takes them."""
    waiting = store.dead_letters.undelivered(now - _DEAD_LETTER_AFTER, _DEAD_LETTERS_MOST)
    if not waiting or broker.lists.has_messages(DEAD_LETTER_QUEUE):
        return 0
    letters = [_letter(broker.get_actor(actor), job) for job in waiting]
    broker.outbox.send_together(bundled(letters))
    return len(waiting)


def _letter(actor: Any, job: dict[str, Any]) -> Any:
    """As `Retries` would send it."""
    message = {"args": [job["_id"]], "actor_name": job["type"], "queue_name": job["queue"]}
    tries = {"retries": job["attempts"] - 1, "max_retries": job["max_attempts"] - 1}
    return actor.message(message, tries)
