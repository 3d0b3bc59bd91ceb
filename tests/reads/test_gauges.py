"""What `/metrics` counts, and the totals that it reads."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pymongo.database import Database

from service.job import Outcome
from service.store import Filter, Stores
from tests import documents
from tests.factories import NOW, ago, ahead, new_job_document


@pytest.fixture(autouse=True)
def jobs(database: Database[Any]) -> None:
    """Some of each kind."""
    documents.insert(
        database,
        [
            *(new_job_document(at=ago(n)) for n in (0, 5, 60)),
            new_job_document(priority="high"),
            new_job_document(priority="low", delay_ms=5_000),
            new_job_document(type="sms", at=ago(90)),
            documents.suspect(8, type="sms"),
            *(documents.processing() for _ in range(2)),
            documents.ended(),
            documents.ended(Outcome.REJECTED, type="report"),
            documents.cancelled(),
        ],
    )


def test_what_is_due_and_what_waits_for_its_time_are_counted_by_type(stores: Stores) -> None:
    listing = stores.listing
    email = ["email"]
    assert (listing.depth(email, NOW), listing.scheduled(email, NOW)) == (4, 1)
    assert (listing.depth(email, ahead(5)), listing.scheduled(email, ahead(5))) == (5, 0)
    assert (listing.depth(["sms"], NOW), listing.depth(["other"], NOW)) == (2, 0)


def test_what_is_processed_and_what_is_pending_are_counted(stores: Stores) -> None:
    assert stores.listing.processing() == 2
    assert (stores.listing.count_pending(100), stores.listing.count_pending(3)) == (7, 3)


def test_what_a_retry_would_take_is_counted(stores: Stores) -> None:
    until = time.monotonic() + 60
    assert stores.bulk.count_retryable(Filter(), until) == (2, False)
    assert stores.bulk.count_retryable(Filter(type="report"), until) == (1, False)
    assert stores.bulk.count_retryable(Filter(status="completed"), until) == (0, False)


def test_what_a_cancellation_would_take_is_counted(stores: Stores) -> None:
    until = time.monotonic() + 60
    assert stores.bulk.count_cancellable(Filter(), until) == (9, False)
    assert stores.bulk.count_cancellable(Filter(status="processing"), until) == (2, False)
    assert stores.bulk.count_cancellable(Filter(status="failed"), until) == (0, False)


def test_totals_are_read_as_they_are(stores: Stores, database: Database[Any]) -> None:
    totals = {"received": 9.0, "failed": {"error": 1.0}, "run": {"b": {"0": 2.0}, "sum": 0.5}}
    documents.insert(database, [{"_id": "email", **totals}], into="counters")
    assert stores.counters.read() == {"email": totals}
