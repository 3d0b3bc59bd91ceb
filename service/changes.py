"""What clients may ask of jobs that exist, with all that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from service.clock import ServerClock
from service.follow_up import FollowUp
from service.mongo import Document
from service.store import Deltas, Filter, Stores
from service.store.jobs import hint_of


class Changes:
    """Synchronous: called on the offload threads. `tell(ids)`: these jobs have ended."""

    def __init__(
        self,
        stores: Stores,
        follow_up: FollowUp,
        clock: ServerClock,
        tell: Callable[[Collection[str]], None],
    ) -> None:
        self._stores, self._follow_up, self._clock, self._tell = stores, follow_up, clock, tell

    def cancel(self, job_id: str) -> Document:
        """The job, cancelled or asked to stop. Raises `UnknownEvent`, `NotAllowedNow`."""
        document, made = self._stores.jobs.cancel(job_id, self._clock.now())
        if made:
            self._tell({job_id})
            deltas = Deltas()
            deltas.add(document["type"], "cancelled")
            self._follow_up.count(deltas)
        return document

    def retry(self, job_id: str) -> Document:
        """The job, pending again. Raises `UnknownEvent`, `NotAllowedNow`."""
        document = self._stores.jobs.retry(job_id, self._clock.now())
        self._follow_up.hint([hint_of(document)])
        return document

    def retry_many(self, which: Filter, *, dry_run: bool) -> tuple[int, int]:
        """How many jobs matched when it began, and how many were retried."""
        matched = self._stores.listing.count_retryable(which)
        if dry_run:
            return matched, 0
        retried = 0
        for documents in self._stores.listing.retry_many(which, self._clock.now()):
            self._follow_up.hint([hint_of(document) for document in documents])
            retried += len(documents)
        return max(matched, retried), retried
