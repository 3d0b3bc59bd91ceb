"""What clients may ask of jobs that exist, with all that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from service.clock import ServerClock
from service.store import Deltas, Filter, Stores
from service.store.documents import hint_of
from service.store.mongo import Document
from service.web.counter_writer import CounterWriter
from service.web.hint_publisher import HintPublisher


class Retried(NamedTuple):
    """What became of a retry by filter."""

    matched: int
    """How many it met."""
    retried: int
    """How many of them it retried itself."""
    more: bool
    """Whether its time was over before all were met."""


class Changes:
    """Synchronous: called on the blocking pool's threads. `tell(ids)`: these jobs have ended."""

    def __init__(
        self,
        stores: Stores,
        hints: HintPublisher,
        counts: CounterWriter,
        clock: ServerClock,
        tell: Callable[[Collection[str]], None],
    ) -> None:
        self._stores, self._clock, self._tell = stores, clock, tell
        self._hints, self._counts = hints, counts

    def cancel(self, job_id: str) -> Document:
        """The job, cancelled or asked to stop. Raises `UnknownEvent`, `NotAllowedNow`."""
        document, made = self._stores.jobs.requests.cancel(job_id, self._clock.now())
        if made:
            self._tell({job_id})
            deltas = Deltas()
            deltas.add(document["type"], "cancelled")
            self._counts.add(deltas)
        return document

    def retry(self, job_id: str) -> Document:
        """The job, pending again. Raises `UnknownEvent`, `NotAllowedNow`."""
        document = self._stores.jobs.requests.retry(job_id, self._clock.now())
        self._hints.publish([hint_of(document)])
        return document

    def retry_many(self, which: Filter, until: float, *, dry_run: bool) -> Retried:
        """Retries what matches, or only counts it; ends soon after `until` (monotonic)."""
        listing = self._stores.listing
        if dry_run:
            matched, more = listing.count_retryable(which, until)
            return Retried(matched, 0, more)
        matched, retried, more = 0, 0, False
        for chunk in listing.retry_many(which, self._clock.now(), until):
            self._hints.publish([hint_of(document) for document in chunk.jobs])
            matched, retried, more = matched + chunk.matched, retried + chunk.changed, chunk.more
        return Retried(matched, retried, more)
