"""Writes and counts what became of claimed jobs that never came to the committer."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from service.errors import StoreUnavailable
from service.job import Job, Transition
from service.metrics.counts import WORKER_COUNTS, observe
from service.store import Counters, Deltas, JobStore

_log = logging.getLogger(__name__)


def finish(
    store: JobStore,
    counters: Counters,
    batch: Sequence[tuple[Job, Transition]],
    *,
    count_as: str | None = None,
) -> list[tuple[Job, Transition]]:
    """Those whose transition stands in MongoDB: all but the ones that were taken away meanwhile.

    Counts just these, under their types and, as `count_as`, among the workers' own counts. Raises
    `StoreUnavailable` where nothing can be said of the transitions.
    """
    elsewhere = store.outcomes.finish(batch)
    standing = [(job, transition) for job, transition in batch if job.id not in elsewhere]
    deltas = Deltas()
    for job, transition in standing:
        observe(deltas, job, transition)
    if count_as is not None and standing:
        deltas.add(WORKER_COUNTS, count_as, len(standing))
    _count(counters, deltas, len(standing))
    return standing


def _count(counters: Counters, deltas: Deltas, jobs: int) -> None:
    """The transitions stand whatever becomes of their counts."""
    try:
        counters.add(deltas)
    except StoreUnavailable as error:
        _log.warning("%d jobs were not counted: %s", jobs, error)
