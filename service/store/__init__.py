"""Everything that PulseQueue asks of MongoDB; the only package with queries.

Each transition of a job is one guarded update of one document. A guard that matches nothing means
that somebody else was faster, and is an answer, never an error.
"""

from service.store.bulk_changes import BulkChanges
from service.store.counters import Counters, Deltas
from service.store.filters import Filter
from service.store.indexes import ensure_indexes
from service.store.jobs import JobStore
from service.store.leader import LeaderLease
from service.store.listing import Listing
from service.store.membership import Membership
from service.store.new_jobs import Accepted
from service.store.stores import Stores
from service.store.workers import Worker, WorkerStore

__all__ = [
    "Accepted",
    "BulkChanges",
    "Counters",
    "Deltas",
    "Filter",
    "JobStore",
    "LeaderLease",
    "Listing",
    "Membership",
    "Stores",
    "Worker",
    "WorkerStore",
    "ensure_indexes",
]
