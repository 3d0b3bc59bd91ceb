"""Accepting by itself, on a real MongoDB: neighbours, crashes and replies that got lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from pymongo.database import Database

from service.clock import ServerClock
from service.concurrency.circuit_breaker import CircuitBreaker
from service.errors import InvalidEvent, KeyReused, StoreUnavailable
from service.job import Hint
from service.queue.broker import PulseBroker
from service.store import Accepted, Counters, JobStore
from service.web.accept import Acceptor
from service.web.backlog import Backlog
from service.web.counter_writer import CounterWriter
from service.web.hint_publisher import HintPublisher
from tests.factories import eventually, new_job_document


class Outbox(HintPublisher):
    """Keeps what would go to Redis."""

    def __init__(self) -> None:
        super().__init__(cast(PulseBroker, None))
        self.sent: list[Hint] = []
        self.later: list[Hint] = []

    def publish(self, hints: Sequence[Hint]) -> None:
        self.sent += hints

    def publish_later(self, hint: Hint, seconds: float) -> None:
        self.later.append(hint)


class Parts:
    """An acceptor and what is around it."""

    def __init__(self, database: Database[Any]) -> None:
        self.jobs = database["jobs"]
        self.store = JobStore(database)
        self.breaker = CircuitBreaker("MongoDB", lambda: None, every_seconds=0.01)
        self.counters = Counters(database)
        self.outbox = Outbox()
        self.counter_writer = CounterWriter(self.counters)
        self.acceptor = Acceptor(
            self.store,
            Backlog(lambda: 0, 0),
            self.outbox,
            self.counter_writer,
            clock=ServerClock(),
            breaker=self.breaker,
            timeout_seconds=5,
            slow_seconds=2,
        )

    def accept(self, *documents: dict[str, Any]) -> list[Accepted | Exception]:
        return asyncio.run(self.acceptor.accept_many(documents, 0))


@pytest.fixture
def parts(database: Database[Any]) -> Iterator[Parts]:
    parts = Parts(database)
    yield parts
    parts.acceptor.stop()
    parts.counter_writer.stop()


def test_one_that_cannot_be_stored_is_nobody_elses_fault(parts: Parts) -> None:
    documents = [new_job_document() for _ in range(50)]
    documents[17]["payload"] = {"too": "large" * 4_000_000}
    documents[31]["payload"] = {"beyond 64 bit": 2**64}
    outcomes = parts.accept(*documents)
    faulty = [i for i, outcome in enumerate(outcomes) if not isinstance(outcome, Accepted)]
    assert faulty == [17, 31]
    assert all(isinstance(outcomes[i], InvalidEvent) for i in faulty)
    assert parts.jobs.count_documents({}) == 48
    eventually(lambda: len(parts.outbox.sent) == 48)
    assert sorted(h.job_id for h in parts.outbox.sent) == sorted(
        d["_id"] for i, d in enumerate(documents) if i not in faulty
    )


def test_the_same_documents_again_are_the_same_events(parts: Parts) -> None:
    """What happens after a reply that got lost."""
    documents = [new_job_document() for _ in range(5)]
    parts.store.new_jobs.accept(documents)
    outcomes = parts.accept(*documents)
    assert [isinstance(outcome, Accepted) for outcome in outcomes] == [True] * 5
    assert parts.jobs.count_documents({}) == 5


def test_replays_are_neither_counted_nor_hinted_at(parts: Parts) -> None:
    first = new_job_document(idempotency_key="k", fingerprint="f")
    again = new_job_document(idempotency_key="k", fingerprint="f")
    other = new_job_document(idempotency_key="k", fingerprint="g")
    outcomes = [parts.accept(document)[0] for document in (first, again, other)]
    assert isinstance(outcomes[1], Accepted)
    assert outcomes[1].replayed
    assert isinstance(outcomes[2], KeyReused)
    eventually(lambda: parts.counters.read().get("email", {}).get("received") == 1)
    assert [hint.job_id for hint in parts.outbox.sent] == [first["_id"]]


def test_what_is_due_later_is_not_hinted_at_now(parts: Parts) -> None:
    soon = new_job_document(at=ServerClock().now(), delay_ms=30_000)
    late = new_job_document(at=ServerClock().now(), delay_ms=90_000)
    parts.accept(soon, late)
    eventually(lambda: parts.counters.read().get("email", {}).get("received") == 2)
    assert parts.outbox.sent == []
    assert [hint.job_id for hint in parts.outbox.later] == [soon["_id"]]


def test_while_the_breaker_is_open_nothing_is_tried(parts: Parts) -> None:
    parts.breaker.is_open = True
    with pytest.raises(StoreUnavailable):
        parts.accept(new_job_document())
    assert parts.jobs.count_documents({}) == 0
