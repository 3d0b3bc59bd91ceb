"""What clients may ask of jobs that exist, with all that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from service.clock import ServerClock
from service.store import Deltas, Filter, Stores
from service.store.bulk import Chunk
from service.store.documents import hint_of
from service.store.mongo import Document
from service.web.counter_writer import CounterWriter
from service.web.hint_publisher import HintPublisher


@dataclass(slots=True)
class Tally:
    """What became of a change by filter."""

    matched: int = 0
    """How many it met."""
    counts: list[int] = field(default_factory=lambda: [0, 0])
    """How many of them it changed itself: retried; or cancelled, and asked to stop."""
    more: bool = False
    """Whether its time was over before all were met."""

    def add(self, chunk: Chunk) -> None:
        self.matched += chunk.matched
        self.more = chunk.more
        for number, count in enumerate(chunk.counts):
            self.counts[number] += count


class Actions:
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
            self._cancelled([document])
        return document

    def retry(self, job_id: str) -> Document:
        """The job, pending again. Raises `UnknownEvent`, `NotAllowedNow`."""
        document = self._stores.jobs.requests.retry(job_id, self._clock.now())
        self._hints.publish([hint_of(document)])
        return document

    def retry_many(self, which: Filter, until: float, *, dry_run: bool) -> Tally:
        """Retries what matches, or only counts it; ends soon after `until` (monotonic)."""
        bulk, tally = self._stores.bulk, Tally()
        if dry_run:
            tally.matched, tally.more = bulk.count_retryable(which, until)
            return tally
        for chunk in bulk.retry(which, self._clock.now, until):
            pending = [d for d in chunk.jobs if d["status"] == "pending"]
            self._hints.publish([hint_of(document) for document in pending])
            tally.add(chunk)
        return tally

    def cancel_many(self, which: Filter, until: float, *, dry_run: bool) -> Tally:
        """Cancels what matches, or asks it to stop, or only counts it; ends soon after `until`
        (monotonic)."""
        bulk, tally = self._stores.bulk, Tally()
        if dry_run:
            tally.matched, tally.more = bulk.count_cancellable(which, until)
            return tally
        for chunk in bulk.cancel(which, self._clock.now, until):
            self._cancelled(chunk.jobs)
            tally.add(chunk)
        return tally

    def _cancelled(self, documents: Sequence[Document]) -> None:
        """What follows from it for jobs that were just made `cancelled`."""
        self._tell({document["_id"] for document in documents})
        deltas = Deltas()
        for document in documents:
            deltas.add(document["type"], "cancelled")
        self._counts.add(deltas)
