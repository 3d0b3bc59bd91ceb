"""All collections of one database, and what a process asks of the database itself."""

from __future__ import annotations

from typing import Self

from pymongo.database import Database

from service.clock import ServerClock
from service.settings import Settings
from service.store import mongo
from service.store.audit import Audit
from service.store.bulk_changes import BulkChanges
from service.store.counters import Counters
from service.store.documents import Retention
from service.store.guard import mongo_errors
from service.store.indexes import drop_former_indexes, ensure_indexes
from service.store.jobs import JobStore
from service.store.leader import SweepWatch
from service.store.listing import Listing
from service.store.mongo import Document
from service.store.schedules import Schedules
from service.store.ticks import Ticks
from service.store.workers import WorkerStore


class Stores:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document], settings: Settings) -> None:
        self._database = database
        retention = Retention(
            completed_seconds=settings.retention_completed_seconds or None,
            failed_seconds=settings.retention_failed_seconds or None,
            cancelled_seconds=settings.retention_cancelled_seconds or None,
        )
        self.jobs = JobStore(database, retention=retention, history_limit=settings.history_limit)
        self.bulk = BulkChanges(database, retention)
        self.listing = Listing(database)
        self.workers = WorkerStore(database, settings.lease_seconds)
        self.counters = Counters(database)
        self.audit = Audit(database)
        self.sweep = SweepWatch(database)
        self.schedules = Schedules(database)
        self.ticks = Ticks(database)

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Those of the database that the settings name; call it after the fork."""
        return cls(mongo.connect(settings), settings)

    def close(self) -> None:
        """Closes the connections."""
        self._database.client.close()

    def prepare(self) -> None:
        """Creates the indexes that are missing."""
        ensure_indexes(self._database)

    def drop_former_indexes(self) -> list[str]:
        """Drops the indexes that only workers of a former version need, once there are none; what
        was dropped."""
        return drop_former_indexes(self._database) if self.workers.all_know_lanes() else []

    def check_writable(self, timeout_seconds: float) -> None:
        """Raises where no server takes writes, or none says so in time."""
        with mongo_errors():
            mongo.check_writable(self._database, timeout_seconds)

    def read_clock(self, clock: ServerClock) -> None:
        """Takes a reading of the server's clock."""
        with mongo_errors():
            mongo.read_clock(self._database, clock)
