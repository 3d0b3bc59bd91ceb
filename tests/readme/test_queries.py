"""The queries for the Mongo shell find what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mongomock
import pytest
from pymongo.database import Database

from service.job import Outcome
from service.store import JobStore, WorkerStore
from tests import documents
from tests.factories import (
    NOW,
    accept,
    ago,
    ahead,
    claimed,
    failed,
    finish,
    make_worker,
    new_job_document,
)
from tests.readme.blocks import all_blocks
from tests.readme.mongo_shell import Query, queries

QUERIES = [q for block in all_blocks() if block.what == "mongo" for q in queries(block.text)]


@pytest.fixture
def written(database: Database[Any], store: JobStore, workers: WorkerStore) -> Database[Any]:
    """One job of each kind that the queries look for."""
    event = {"type": "simulate"}
    accept(store, at=ago(60), **event)
    accept(store, at=ago(60), run_at=ahead(3_600), **event)
    accept(store, **event, idempotency_key="order-4711", fingerprint="x")
    claimed(store, **event, at=ago(30))
    finish(store, claimed(store, **event, at=ago(9)), result={"ok": True})
    failed(store, **event)
    suspect = claimed(store, **event)
    finish(store, replace(suspect, company=8), Outcome.UNSTARTED)
    workers.beat(make_worker(), 3)
    documents.insert(database, documents.of_schedule(), "schedules")
    documents.insert(database, [documents.by_schedule(**event)])
    return database


def on_mongomock() -> Database[Any]:
    """The same jobs there, which can't be written by the store."""
    event = {"type": "simulate"}
    database = mongomock.MongoClient(tz_aware=True)["readme"]
    jobs = [
        new_job_document(at=ago(60), **event),
        new_job_document(at=ago(60), run_at=ahead(3_600), **event),
        new_job_document(**event, idempotency_key="order-4711", fingerprint="x"),
        documents.processing(**event, at=ago(30)),
        documents.ended(**event, began=ago(9), result={"ok": True}),
        documents.ended(Outcome.REJECTED, **event, message="no"),
        documents.suspect(8, **event),
    ]
    documents.insert(database, [*jobs, documents.by_schedule(**event)])
    documents.insert(database, documents.of_schedule(), "schedules")
    return database


@pytest.fixture
def asked(request: pytest.FixtureRequest) -> Database[Any]:
    """mongomock, or real MongoDB."""
    real = request.param == "mongodb"
    return request.getfixturevalue("written") if real else on_mongomock()


ASKED = [
    pytest.param("mongodb", query, id=query.comment, marks=pytest.mark.mongodb) for query in QUERIES
] + [
    pytest.param("mongomock", query, id=f"{query.comment}, on mongomock")
    for query in QUERIES
    if "$$NOW" not in str(query.calls)  # it does not know that
]


@pytest.mark.parametrize(("asked", "query"), ASKED, indirect=["asked"])
def test_a_query_finds_what_it_says(asked: Database[Any], query: Query) -> None:
    if "_id" in query.calls[0][1][0]:  # the page's id is of another day
        query.calls[0][1][0]["_id"] = asked["jobs"].find_one()["_id"]
    found = query.run(asked)
    expected = {
        "1": lambda: len(found) == 1,
        "2": lambda: found[0]["idempotency_key"] == "order-4711",
        "3": lambda: [(f["_id"], f["jobs"]) for f in found] == [("default", 3)],
        "4": lambda: found[0]["next_attempt_at"] == ago(60) and len(found) == 3,
        "5": lambda: [f["started_at"] for f in found] == [ago(30)],
        "6": lambda: found == [{"_id": {"type": "simulate", "reason": "rejected"}, "jobs": 1}],
        "7": lambda: [(f["_id"], f["jobs"]) for f in found] == [("no", 1)],
        "8": lambda: [f["company"] for f in found] == [8],
        "9": lambda: [f["seconds"] for f in found] == [(NOW - ago(9)).total_seconds()],
        "10": lambda: (found[0]["processing"], found[0]["age_seconds"] < 60) == (3, True),
        "11": lambda: [f["_id"] for f in found] == ["late", "nightly"],
        "12": lambda: [f["tick_at"] for f in found] == [ago(5)],
    }
    assert expected[query.comment.partition(".")[0]](), found


def test_there_are_twelve_queries() -> None:
    assert [query.comment.partition(".")[0] for query in QUERIES] == [str(n) for n in range(1, 13)]
