"""The one way out of `processing`: writes what becomes of claimed jobs, and counts what stands.

The committer comes here with what has run, the rescue with a dead worker's jobs, and whoever gives
back what it claimed and can't run.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.crash import crash_point
from service.errors import StoreUnavailable
from service.job import Job, Transition
from service.metrics.counts import WORKER_COUNTS, observe
from service.store import Counters, Deltas, JobStore

_log = logging.getLogger(__name__)

JobTransition = tuple[Job, Transition]
Unavailable = Callable[[StoreUnavailable, int], bool]
"""Where so many jobs can't be written: whether to try again. It may raise the error."""
Instead = Callable[[Transition], Transition]


def finish(
    store: JobStore,
    counters: Counters,
    batch: Sequence[JobTransition],
    *,
    count_as: str | None = None,
    count_fenced_as: str | None = None,
    unavailable: Unavailable | None = None,
    instead: Instead | None = None,
) -> list[JobTransition]:
    """Those whose transition stands in MongoDB: all but the ones that were taken away meanwhile,
    and those that MongoDB refuses, none of which holds up its neighbours.

    Counts just these, under their types and, as `count_as`, among the workers' own counts; what was
    taken away as `count_fenced_as`. `unavailable` is asked where nothing can be said of the
    transitions; without it, `StoreUnavailable` is raised. `instead`: what to write in place of a
    transition that is refused.
    """
    finishing = _Finishing(
        store, counters, count_as, count_fenced_as, unavailable or _raised, instead
    )
    return finishing.finish(batch)


def _raised(error: StoreUnavailable, _jobs: int) -> bool:
    raise error


@dataclass(frozen=True, slots=True)
class _Finishing:
    store: JobStore
    counters: Counters
    count_as: str | None
    count_fenced_as: str | None
    unavailable: Unavailable
    instead: Instead | None

    def finish(self, batch: Sequence[JobTransition]) -> list[JobTransition]:
        try:
            fenced = self._write(batch)
        except StoreUnavailable:
            raise
        except Exception:
            return self._finish_apart(batch)
        if fenced is None:
            return []
        crash_point("worker.after_commit")
        standing = [judged for judged in batch if judged[0].id not in fenced] if fenced else batch
        # At once: what dies before this leaves the batch uncounted.
        self._count(standing, len(fenced))
        return list(standing)

    def _write(self, batch: Sequence[JobTransition]) -> set[str] | None:
        """The ids of those that were taken away; None: the batch is left as it is."""
        while True:
            try:
                return self.store.outcomes.finish(batch)
            except StoreUnavailable as error:
                if not self.unavailable(error, len(batch)):
                    return None

    def _finish_apart(self, batch: Sequence[JobTransition]) -> list[JobTransition]:
        """Of a batch that was refused: each half for itself, down to the one that it is for."""
        middle = len(batch) // 2
        if middle:
            return self.finish(batch[:middle]) + self.finish(batch[middle:])
        ((job, transition),) = batch
        _log.exception("an outcome can't be stored", extra={"event_id": job.id})
        if self.instead is None:
            return []
        last_try = dataclasses.replace(self, instead=None)
        return last_try.finish([(job, self.instead(transition))])

    def _count(self, standing: Sequence[JobTransition], fenced: int) -> None:
        """The transitions stand whatever becomes of their counts."""
        deltas = Deltas()
        for job, transition in standing:
            observe(deltas, job, transition)
        if fenced and self.count_fenced_as is not None:
            _log.warning("%d late outcomes were fenced off", fenced)
        for name, count in ((self.count_as, len(standing)), (self.count_fenced_as, fenced)):
            if name is not None and count:
                deltas.add(WORKER_COUNTS, name, count)
        try:
            self.counters.add(deltas)
        except StoreUnavailable as error:
            _log.warning("%d jobs were not counted: %s", len(standing), error)
