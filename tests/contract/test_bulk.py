"""Changes of many jobs by filter, on real MongoDB: what they count is what they changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import AutoReconnect, ExecutionTimeout

from infra.servers import MongoServer
from service.errors import StoreUnavailable
from service.job import Outcome
from service.settings import Settings
from service.store import BulkChanges, Filter, JobStore, bulk, mongo
from service.store.bulk import Chunk
from tests.conftest import RETENTION
from tests.factories import (
    NOW,
    accept,
    accept_many,
    ago,
    ahead,
    claim,
    claimed,
    failed,
    finish,
    new_job_document,
    seconds,
)
from tests.faults.proxy import Proxy

ALL = Filter()
LONG_SECONDS = 20.0


def soon() -> datetime:
    return ahead(1)


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [d["_id"] for d in documents]


@pytest.fixture
def bulk_changes(database: Database[Any]) -> BulkChanges:
    return BulkChanges(database, RETENTION)


# retry


def until(seconds: float = LONG_SECONDS) -> float:
    return time.monotonic() + seconds


def retried(bulk_changes: BulkChanges, which: Filter = ALL) -> list[str]:
    return [i for chunk in bulk_changes.retry(which, soon, until()) for i in ids(chunk.jobs)]


def how_many(bulk_changes: BulkChanges, which: Filter = ALL) -> int:
    return bulk_changes.count_retryable(which, until())[0]


def cancelled(store: JobStore) -> str:
    job_id: str = store.requests.cancel(accept(store)["_id"], NOW)[0]["_id"]
    return job_id


def test_only_failed_and_cancelled_jobs_match(store: JobStore, bulk_changes: BulkChanges) -> None:
    accept(store)
    claimed(store)
    finish(store, claimed(store))
    wanted = {failed(store)["_id"], cancelled(store)}
    assert how_many(bulk_changes) == 2
    assert set(retried(bulk_changes)) == wanted
    assert how_many(bulk_changes) == 0
    assert {store.requests.get(i)["status"] for i in wanted} == {"pending"}


@pytest.mark.parametrize("status", ["pending", "processing", "completed"])
def test_asking_for_another_status_matches_nothing(
    store: JobStore, bulk_changes: BulkChanges, status: str
) -> None:
    failed(store)
    finish(store, claimed(store))
    assert how_many(bulk_changes, Filter(status=status)) == 0
    assert retried(bulk_changes, Filter(status=status)) == []


def test_a_filter_bounds_what_is_retried(store: JobStore, bulk_changes: BulkChanges) -> None:
    old = failed(store, at=ago(60))["_id"]
    report = failed(store, type="report")["_id"]
    kept = failed(store)["_id"]
    assert retried(bulk_changes, Filter(type="report")) == [report]
    assert retried(bulk_changes, Filter(created_before=ago(30))) == [old]
    assert store.requests.get(kept)["status"] == "failed"


def test_a_retried_job_has_a_fresh_budget_and_is_due(
    store: JobStore, bulk_changes: BulkChanges
) -> None:
    job_id = failed(store)["_id"]
    retried(bulk_changes)
    document = store.requests.get(job_id)
    assert (document["max_attempts"], document["next_attempt_at"]) == (10, ahead(1))
    assert claim(store, job_id, at=ahead(1)).attempts == 2


def fail_all(store: JobStore, documents: list[dict[str, Any]]) -> None:
    jobs = store.claims.claim(ids(documents), "w", ahead(2))
    for job in jobs:
        finish(store, job, Outcome.REJECTED, at=ahead(2))


def test_thousands_are_retried_in_chunks_each_once_though_they_fail_again(
    store: JobStore, bulk_changes: BulkChanges
) -> None:
    posted = [new_job_document() | {"status": "cancelled"} for _ in range(2_300)]
    store.new_jobs.accept(posted)
    seen: list[str] = []
    for chunk in bulk_changes.retry(ALL, soon, until()):
        assert len(chunk.jobs) <= 1_000
        seen += ids(chunk.jobs)
        fail_all(store, chunk.jobs[:20])
    assert sorted(seen) == sorted(ids(posted))


def test_a_job_that_was_claimed_at_once_counts_as_retried(
    store: JobStore, bulk_changes: BulkChanges
) -> None:
    job_id = failed(store)["_id"]
    chunks = iter(bulk_changes.retry(ALL, soon, until()))
    assert ids(next(chunks).jobs) == [job_id]
    claim(store, job_id, at=ahead(1))
    assert list(chunks) == []


def cancelled_many(store: JobStore, count: int, **event: Any) -> list[str]:
    posted = [new_job_document(**event) | {"status": "cancelled"} for _ in range(count)]
    store.new_jobs.accept(posted)
    return ids(posted)


def test_retries_at_the_same_moment_count_each_job_once(
    store: JobStore, bulk_changes: BulkChanges
) -> None:
    posted = cancelled_many(store, 1_200)
    gate = threading.Barrier(4)

    def retry() -> list[Chunk]:
        gate.wait(5)
        return list(bulk_changes.retry(ALL, soon, until()))

    with ThreadPoolExecutor(4) as pool:
        chunks = [c for call in [pool.submit(retry) for _ in range(4)] for c in call.result()]
    assert sum(chunk.changed for chunk in chunks) == len(posted)
    assert sorted(i for chunk in chunks for i in ids(chunk.jobs)) == sorted(posted)
    assert all(chunk.changed <= chunk.matched for chunk in chunks)


def test_a_retry_ends_in_time_and_says_that_more_is_left(
    store: JobStore, bulk_changes: BulkChanges
) -> None:
    posted = cancelled_many(store, 1_200)
    (chunk,) = bulk_changes.retry(ALL, soon, until(0))
    assert chunk.more
    assert 0 < chunk.changed < len(posted)
    assert how_many(bulk_changes) == len(posted) - chunk.changed
    *_, last = bulk_changes.retry(ALL, soon, until())
    assert not last.more
    assert how_many(bulk_changes) == 0


def test_a_count_ends_in_time_and_says_that_more_is_left(
    store: JobStore, bulk_changes: BulkChanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_COUNT_STEP", 10)
    cancelled_many(store, 20)
    assert bulk_changes.count_retryable(ALL, until(0)) == (10, True)
    assert bulk_changes.count_retryable(ALL, until()) == (20, False)
    failed(store)
    assert bulk_changes.count_retryable(ALL, until()) == (21, False)


# cancel


def cancel(bulk_changes: BulkChanges, which: Filter = ALL) -> list[Chunk]:
    return list(bulk_changes.cancel(which, soon, until()))


def counted(chunks: list[Chunk]) -> tuple[int, ...]:
    """Of a cancellation: matched, cancelled, asked."""
    sums = [sum(chunk.counts[number] for chunk in chunks) for number in (0, 1)]
    return (sum(chunk.matched for chunk in chunks), *sums)


def test_what_is_pending_is_cancelled_and_what_runs_is_asked(
    store: JobStore, bulk_changes: BulkChanges
) -> None:
    waiting, running = accept(store)["_id"], claimed(store)
    ended = [failed(store)["_id"], cancelled(store)]
    before = [store.requests.get(i) for i in ended]
    assert bulk_changes.count_cancellable(ALL, until()) == (2, False)
    (chunk,) = cancel(bulk_changes)
    assert counted([chunk]) == (2, 1, 1)
    assert ids(chunk.jobs) == [waiting]
    document = store.requests.get(waiting)
    assert (document["status"], document["next_attempt_at"]) == ("cancelled", None)
    assert (document["finished_at"], document["updated_at"]) == (soon(), soon())
    assert document["expires_at"] == soon() + seconds(RETENTION.cancelled_seconds or 0)
    assert store.requests.get(running.id)["status"] == "processing"
    assert store.held.cancel_requests("worker-1", [running.id]) == [running.id]
    assert [store.requests.get(i) for i in ended] == before


@pytest.mark.parametrize(
    ("status", "expected"),
    [("pending", (1, 1, 0)), ("processing", (1, 0, 1)), ("failed", (0, 0, 0))],
)
def test_one_status_alone_can_be_cancelled(
    store: JobStore, bulk_changes: BulkChanges, status: str, expected: tuple[int, ...]
) -> None:
    accept(store)
    claimed(store)
    failed(store)
    which = Filter(status=status)
    assert bulk_changes.count_cancellable(which, until()) == (expected[0], False)
    assert counted(cancel(bulk_changes, which)) == expected


def test_who_was_asked_before_is_not_asked_again(
    store: JobStore, bulk_changes: BulkChanges
) -> None:
    store.requests.cancel(claimed(store).id, NOW)
    assert bulk_changes.count_cancellable(ALL, until()) == (0, False)
    assert counted(cancel(bulk_changes)) == (0, 0, 0)


def test_a_cancelled_job_is_not_claimed_and_can_be_retried(
    store: JobStore, bulk_changes: BulkChanges
) -> None:
    job_id = accept(store)["_id"]
    cancel(bulk_changes)
    assert store.claims.claim([job_id], "w", ahead(2)) == []
    assert retried(bulk_changes) == [job_id]
    assert claim(store, job_id, at=ahead(2)).id == job_id


def test_a_job_that_is_given_back_while_it_is_asked_is_cancelled_all_the_same(
    store: JobStore, bulk_changes: BulkChanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first statement passes it over because it runs, the second because it waits."""
    job = claimed(store)
    update = bulk.commands.update
    statements = []

    def late(*args: Any) -> int:
        statements.append(args)
        if len(statements) == 2:
            finish(store, job, Outcome.ERROR)
        return update(*args)

    monkeypatch.setattr(bulk.commands, "update", late)
    made = cancel(bulk_changes)
    assert counted(made) == (1, 1, 0)
    assert store.requests.get(job.id)["status"] == "cancelled"


# at the same moment, and over lost replies


def test_retries_and_a_cancellation_at_once_count_what_they_changed(
    store: JobStore, bulk_changes: BulkChanges, database: Database[Any]
) -> None:
    """Each job that a retry makes pending may be cancelled by the other, and retried again."""
    for _ in range(10):
        cancelled_many(store, 800)
    gate = threading.Barrier(3)

    def retry() -> int:
        gate.wait(5)
        return sum(chunk.changed for chunk in bulk_changes.retry(ALL, soon, until()))

    def cancel_all() -> int:
        gate.wait(5)
        return sum(chunk.counts[0] for chunk in bulk_changes.cancel(ALL, soon, until()))

    with ThreadPoolExecutor(3) as pool:
        retries = [pool.submit(retry) for _ in range(2)]
        cancels = pool.submit(cancel_all)
        made_pending, made_cancelled = sum(r.result() for r in retries), cancels.result()
    pending = database["jobs"].count_documents({"status": "pending"})
    assert made_pending - made_cancelled == pending
    assert budgets_granted(database) == made_pending


@pytest.fixture
def quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a statement may take, and so what a lost reply costs: a second rather than five."""
    monkeypatch.setattr(bulk, "_STEP_SECONDS", 1.0)


@pytest.fixture
def proxy(mongo_server: MongoServer) -> Iterator[Proxy]:
    with Proxy(mongo_server.port) as proxy:
        yield proxy


@pytest.fixture
def far_changes(settings: Settings, proxy: Proxy) -> Iterator[BulkChanges]:
    """Changes that go through the proxy."""
    uri = f"mongodb://127.0.0.1:{proxy.port}/{settings.database}?directConnection=true"
    database = mongo.connect(replace(settings, mongodb_uri=uri, mongodb_timeout_ms=1_000))
    yield BulkChanges(database, RETENTION)
    database.client.close()


Hook = Callable[[Any, Sequence[Any]], None]


def around_first_update(
    monkeypatch: pytest.MonkeyPatch, before: Hook | None = None, after: Hook | None = None
) -> None:
    """Something happens right before, or right behind the first statement of a call; whatever it
    raises is what the call gets instead of the reply."""
    update, calls = bulk.commands.update, []

    def first(database: Any, name: str, updates: Sequence[Any]) -> int:
        calls.append(updates)
        is_first = len(calls) == 1
        if is_first and before is not None:
            before(database, updates)
        count = update(database, name, updates)
        if is_first and after is not None:
            after(database, updates)
        return count

    monkeypatch.setattr(bulk.commands, "update", first)


def lose_reply(*_: Any) -> None:
    raise AutoReconnect("the connection was reset")


def budgets_granted(database: Database[Any]) -> int:
    """How many retries there were in all."""
    each = {"$subtract": [{"$divide": ["$max_attempts", "$budget"]}, 1]}
    found = database["jobs"].aggregate([{"$group": {"_id": None, "all": {"$sum": each}}}])
    return int(next(iter(found))["all"])


def test_a_retry_whose_reply_is_lost_counts_what_it_changed(
    store: JobStore,
    database: Database[Any],
    far_changes: BulkChanges,
    proxy: Proxy,
    quick_steps: None,
) -> None:
    cancelled_many(store, 300)
    proxy.lose_reply(b"$concatArrays")
    chunks = list(far_changes.retry(ALL, soon, until()))
    assert proxy.replies_lost == 1
    assert sum(chunk.changed for chunk in chunks) == 300
    assert sum(len(chunk.jobs) for chunk in chunks) == 300
    assert not chunks[-1].more
    assert budgets_granted(database) == 300


def test_a_cancellation_whose_replies_are_lost_counts_what_it_changed(
    store: JobStore, far_changes: BulkChanges, proxy: Proxy, quick_steps: None
) -> None:
    accept_many(store, 150)
    for _ in range(20):
        claimed(store)
    proxy.lose_reply(b"next_attempt_at")
    proxy.lose_reply(b"$concatArrays")
    chunks = list(far_changes.cancel(ALL, soon, until()))
    assert proxy.replies_lost == 2
    assert counted(chunks) == (170, 150, 20)


def test_a_request_that_is_lost_is_made_up_for(
    store: JobStore,
    bulk_changes: BulkChanges,
    monkeypatch: pytest.MonkeyPatch,
    quick_steps: None,
) -> None:
    cancelled_many(store, 80)
    around_first_update(monkeypatch, before=lose_reply)
    (chunk,) = bulk_changes.retry(ALL, soon, until())
    assert (chunk.matched, chunk.changed, chunk.more) == (80, 80, False)


def test_what_others_change_before_a_lost_reply_is_counted_is_counted_all_the_same(
    store: JobStore,
    bulk_changes: BulkChanges,
    database: Database[Any],
    monkeypatch: pytest.MonkeyPatch,
    quick_steps: None,
) -> None:
    """All of them are cancelled and retried by others, and one is claimed and fails again."""
    posted = cancelled_many(store, 60)
    others: list[Chunk] = []

    def go_on(*_: Any) -> None:
        others.extend(bulk_changes.cancel(ALL, soon, until()))
        others.extend(bulk_changes.retry(ALL, soon, until()))
        finish(store, claim(store, posted[0], at=ahead(2)), Outcome.REJECTED, at=ahead(2))
        lose_reply()

    around_first_update(monkeypatch, after=go_on)
    (chunk,) = bulk_changes.retry(ALL, soon, until())
    assert [other.changed for other in others] == [60, 60]
    assert chunk.changed == 60
    assert budgets_granted(database) == 120


def test_a_statement_that_the_server_gives_up_halfway_is_finished(
    store: JobStore,
    bulk_changes: BulkChanges,
    database: Database[Any],
    monkeypatch: pytest.MonkeyPatch,
    quick_steps: None,
) -> None:
    cancelled_many(store, 90)

    def half_of_it(database: Any, updates: Sequence[Any]) -> None:
        (one,) = updates
        ids = one["q"]["_id"]["$in"][:45]
        half = {**one, "q": {**one["q"], "_id": {"$in": ids}}}
        database.command("update", "jobs", updates=[half])
        raise ExecutionTimeout("operation exceeded time limit", 50)

    around_first_update(monkeypatch, before=half_of_it)
    (chunk,) = bulk_changes.retry(ALL, soon, until())
    assert (chunk.changed, len(chunk.jobs)) == (90, 90)
    assert budgets_granted(database) == 90


def test_where_nothing_can_be_known_there_is_no_count(
    store: JobStore,
    far_changes: BulkChanges,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    quick_steps: None,
) -> None:
    monkeypatch.setattr(bulk, "_GRACE_SECONDS", 2.0)
    cancelled_many(store, 300)
    chunks = far_changes.retry(ALL, soon, until(0.5))
    around_first_update(monkeypatch, after=lambda *_: (proxy.refuse(), lose_reply())[0])
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        next(chunks)
    assert time.monotonic() - began < 6


def test_what_was_counted_is_told_though_mongodb_goes_away(
    store: JobStore, far_changes: BulkChanges, proxy: Proxy, quick_steps: None
) -> None:
    cancelled_many(store, 1_000)
    chunks = far_changes.retry(ALL, soon, until())
    first = next(chunks)
    proxy.refuse()
    (last,) = chunks
    assert (first.changed > 0, first.more) == (True, False)
    assert (last.matched, last.changed, last.more) == (0, 0, True)
