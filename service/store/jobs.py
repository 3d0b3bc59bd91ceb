"""The collection `jobs`, a part for each concern."""

from __future__ import annotations

from pymongo.database import Database

from service.store.claims import Claims
from service.store.dead_letters import DeadLetters
from service.store.documents import Retention
from service.store.held import HeldJobs
from service.store.mongo import Document
from service.store.new_jobs import NewJobs
from service.store.outcomes import Outcomes
from service.store.requests import Requests
from service.store.waiting import WaitingJobs


class JobStore:
    """Where MongoDB gives no answer, a method of any part raises `StoreUnavailable`."""

    def __init__(
        self,
        database: Database[Document],
        *,
        retention: Retention | None = None,
        history_limit: int = 100,
    ) -> None:
        retention = retention or Retention()
        self.new_jobs = NewJobs(database)
        self.waiting = WaitingJobs(database)
        self.claims = Claims(database)
        self.held = HeldJobs(database)
        self.outcomes = Outcomes(database, retention, history_limit)
        self.dead_letters = DeadLetters(database)
        self.requests = Requests(database, retention)
