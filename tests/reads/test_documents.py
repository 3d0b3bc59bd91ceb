"""The documents that tests of reads insert are what the store writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.job import Outcome
from service.store import JobStore, WorkerStore
from tests import documents
from tests.factories import NOW, accept, claimed, failed, finish, make_worker, new_job_document

Document = dict[str, Any]
pytestmark = pytest.mark.mongodb


@pytest.fixture
def database(emptied: Any) -> Any:
    return emptied


@pytest.fixture
def store(database: Any) -> JobStore:
    """One that keeps what is final for ever."""
    return JobStore(database)


def kinds(value: Any) -> Any:
    """The names and the types of what is in it; texts as they are, but for those made anew."""
    match value:
        case dict():
            return {k: kinds(v) for k, v in value.items() if k not in {"_id", "claim"}}
        case list():
            return [kinds(one) for one in value]
        case str():
            return str(value)
    return type(value)


def written(store: JobStore, kind: str) -> Document:
    """A document that the store has brought to this state."""
    if kind == "waiting":
        return store.requests.get(accept(store)["_id"])
    if kind == "cancelled":
        return store.requests.cancel(accept(store)["_id"], NOW)[0]
    if kind == "failed":
        return failed(store)
    job = claimed(store)
    if kind == "completed":
        finish(store, job, result={"ok": True})
    if kind == "suspect":
        finish(store, replace(job, company=8), Outcome.UNSTARTED)
    return store.requests.get(job.id)


MADE = {
    "waiting": new_job_document(),
    "processing": documents.processing(),
    "completed": documents.ended(result={"ok": True}),
    "failed": documents.ended(Outcome.REJECTED, message="no"),
    "suspect": documents.suspect(8),
    "cancelled": documents.cancelled(),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_job_that_was_made_here_is_as_the_store_would_have_it(store: JobStore, kind: str) -> None:
    theirs = written(store, kind)
    assert kinds(MADE[kind]) == kinds(theirs)
    assert ("claim" in MADE[kind]) == ("claim" in theirs)


def test_a_worker_that_was_made_here_is_as_the_store_would_have_it(
    database: Any, workers: WorkerStore
) -> None:
    workers.beat(make_worker(), 3)
    assert kinds(documents.worker(3)) == kinds(database["workers"].find_one())
