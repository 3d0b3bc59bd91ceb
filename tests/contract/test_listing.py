"""Many jobs at once, on real MongoDB."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from service.job import Outcome
from service.store import Filter, JobStore, Listing, bulk
from service.store import listing as listing_module
from service.store.bulk import Chunk
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
)

ALL = Filter()
MS = timedelta(milliseconds=1)
MOST_BYTES = 1_000_000


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [d["_id"] for d in documents]


def page(listing: Listing, which: Filter, limit: int, below: str | None = None) -> list[str]:
    documents, _ = listing.page(which, limit, below, MOST_BYTES)
    return ids(documents)


def pages(listing: Listing, which: Filter = ALL, *, limit: int = 3) -> list[str]:
    """Every id, page by page."""
    found: list[str] = []
    below = None
    while found_now := page(listing, which, limit, below):
        assert len(found_now) <= limit
        found += found_now
        below = found_now[-1]
    return found


# pages


def test_pages_are_newest_first_and_miss_nobody(store: JobStore, listing: Listing) -> None:
    posted = accept_many(store, 10)
    assert pages(listing) == posted[::-1]


def test_events_of_one_millisecond_are_each_listed_once(store: JobStore, listing: Listing) -> None:
    posted = [new_job_document() for _ in range(25)]
    store.new_jobs.accept(posted)
    assert pages(listing, limit=4) == sorted((d["_id"] for d in posted), reverse=True)


def test_what_is_posted_meanwhile_moves_no_page(store: JobStore, listing: Listing) -> None:
    posted = accept_many(store, 6)
    first = page(listing, ALL, 3)
    accept(store, at=ahead(1))
    assert first + page(listing, ALL, 3, first[-1]) == posted[::-1]


def test_a_page_beyond_the_last_is_empty(store: JobStore, listing: Listing) -> None:
    posted = accept_many(store, 2)
    assert page(listing, ALL, 3, posted[0]) == []


# filters


def test_a_status_and_a_type_can_be_asked_for(store: JobStore, listing: Listing) -> None:
    waiting = accept(store)["_id"]
    bad_report = failed(store, type="report")["_id"]
    bad_email = failed(store)["_id"]
    assert pages(listing, Filter(status="pending")) == [waiting]
    assert set(pages(listing, Filter(status="failed"))) == {bad_report, bad_email}
    assert pages(listing, Filter(status="failed", type="report")) == [bad_report]
    assert set(pages(listing, Filter(type="email"))) == {waiting, bad_email}
    assert pages(listing, Filter(type="other")) == []


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (Filter(created_after=NOW), ["now", "later"]),
        (Filter(created_after=NOW + MS), ["later"]),
        (Filter(created_before=NOW), ["before"]),
        (Filter(created_before=NOW + MS), ["before", "now"]),
        (Filter(created_after=NOW, created_before=NOW + MS), ["now"]),
        (Filter(created_after=NOW, created_before=NOW), []),
        (Filter(created_after=ahead(9), created_before=ago(9)), []),
    ],
)
def test_after_is_inclusive_and_before_is_exclusive_to_the_millisecond(
    store: JobStore, listing: Listing, which: Filter, expected: list[str]
) -> None:
    names = {
        accept(store, at=at)["_id"]: name
        for name, at in (("before", NOW - MS), ("now", NOW), ("later", NOW + MS))
    }
    assert [names[i] for i in reversed(pages(listing, which))] == expected


def test_a_range_of_times_is_a_range_of_ids() -> None:
    query = Filter(created_after=ago(1), created_before=NOW).query()
    assert set(query) == {"_id"}
    assert set(query["_id"]) == {"$gte", "$lt"}


def test_a_cursor_and_a_time_bound_meet_at_the_lower_one(store: JobStore, listing: Listing) -> None:
    posted = accept_many(store, 9)
    which = Filter(created_before=NOW - 2 * MS)
    assert pages(listing, which, limit=2) == posted[:-2][::-1]


# retry by filter


SOON = 20.0


def until(seconds: float = SOON) -> float:
    return time.monotonic() + seconds


def retried(listing: Listing, which: Filter = ALL) -> list[str]:
    return [i for chunk in listing.retry_many(which, ahead(1), until()) for i in ids(chunk.jobs)]


def how_many(listing: Listing, which: Filter = ALL) -> int:
    return listing.count_retryable(which, until())[0]


def cancelled(store: JobStore) -> str:
    job_id: str = store.requests.cancel(accept(store)["_id"], NOW)[0]["_id"]
    return job_id


def test_only_failed_and_cancelled_jobs_match(store: JobStore, listing: Listing) -> None:
    accept(store)
    claimed(store)
    finish(store, claimed(store))
    wanted = {failed(store)["_id"], cancelled(store)}
    assert how_many(listing) == 2
    assert set(retried(listing)) == wanted
    assert how_many(listing) == 0
    assert {store.requests.get(i)["status"] for i in wanted} == {"pending"}


@pytest.mark.parametrize("status", ["pending", "processing", "completed"])
def test_asking_for_another_status_matches_nothing(
    store: JobStore, listing: Listing, status: str
) -> None:
    failed(store)
    finish(store, claimed(store))
    assert how_many(listing, Filter(status=status)) == 0
    assert retried(listing, Filter(status=status)) == []


def test_a_filter_bounds_what_is_retried(store: JobStore, listing: Listing) -> None:
    old = failed(store, at=ago(60))["_id"]
    report = failed(store, type="report")["_id"]
    kept = failed(store)["_id"]
    assert retried(listing, Filter(type="report")) == [report]
    assert retried(listing, Filter(created_before=ago(30))) == [old]
    assert store.requests.get(kept)["status"] == "failed"


def test_a_retried_job_has_a_fresh_budget_and_is_due(store: JobStore, listing: Listing) -> None:
    job_id = failed(store)["_id"]
    retried(listing)
    document = store.requests.get(job_id)
    assert (document["max_attempts"], document["next_attempt_at"]) == (10, ahead(1))
    assert claim(store, job_id, at=ahead(1)).attempts == 2


def fail_all(store: JobStore, documents: list[dict[str, Any]]) -> None:
    jobs = store.claims.claim(ids(documents), "w", ahead(2))
    for job in jobs:
        finish(store, job, Outcome.REJECTED, at=ahead(2))


def test_thousands_are_retried_in_chunks_each_once_though_they_fail_again(
    store: JobStore, listing: Listing
) -> None:
    posted = [new_job_document() | {"status": "cancelled"} for _ in range(2_300)]
    store.new_jobs.accept(posted)
    seen: list[str] = []
    for chunk in listing.retry_many(ALL, ahead(1), until()):
        assert len(chunk.jobs) <= 1_000
        seen += ids(chunk.jobs)
        fail_all(store, chunk.jobs[:20])
    assert sorted(seen) == sorted(ids(posted))


def test_a_job_that_was_claimed_at_once_counts_as_retried(
    store: JobStore, listing: Listing
) -> None:
    job_id = failed(store)["_id"]
    chunks = iter(listing.retry_many(ALL, ahead(1), until()))
    assert ids(next(chunks).jobs) == [job_id]
    claim(store, job_id, at=ahead(1))
    assert list(chunks) == []


def cancelled_many(store: JobStore, count: int, **event: Any) -> list[str]:
    posted = [new_job_document(**event) | {"status": "cancelled"} for _ in range(count)]
    store.new_jobs.accept(posted)
    return ids(posted)


def test_retries_at_the_same_moment_count_each_job_once(store: JobStore, listing: Listing) -> None:
    posted = cancelled_many(store, 1_200)
    gate = threading.Barrier(4)

    def retry() -> list[Chunk]:
        gate.wait(5)
        return list(listing.retry_many(ALL, ahead(1), until()))

    with ThreadPoolExecutor(4) as pool:
        chunks = [c for call in [pool.submit(retry) for _ in range(4)] for c in call.result()]
    assert sum(chunk.changed for chunk in chunks) == len(posted)
    assert sorted(i for chunk in chunks for i in ids(chunk.jobs)) == sorted(posted)
    assert all(chunk.changed <= chunk.matched for chunk in chunks)


def test_a_retry_ends_in_time_and_says_that_more_is_left(store: JobStore, listing: Listing) -> None:
    posted = cancelled_many(store, 1_200)
    (chunk,) = listing.retry_many(ALL, ahead(1), until(0))
    assert chunk.more
    assert 0 < chunk.changed < len(posted)
    assert how_many(listing) == len(posted) - chunk.changed
    *_, last = listing.retry_many(ALL, ahead(1), until())
    assert not last.more
    assert how_many(listing) == 0


def test_a_count_ends_in_time_and_says_that_more_is_left(
    store: JobStore, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_COUNT_STEP", 10)
    cancelled_many(store, 20)
    assert listing.count_retryable(ALL, until(0)) == (10, True)
    assert listing.count_retryable(ALL, until()) == (20, False)
    failed(store)
    assert listing.count_retryable(ALL, until()) == (21, False)


# how much there is


def test_depth_and_scheduled_are_by_queue_and_time(store: JobStore, listing: Listing) -> None:
    accept_many(store, 3)
    accept(store, priority="high")
    accept(store, priority="low", delay_ms=5_000)
    accept(store, queue="mail")
    claimed(store)
    assert (listing.depth("default", NOW), listing.scheduled("default", NOW)) == (4, 1)
    assert (listing.depth("default", ahead(5)), listing.scheduled("default", ahead(5))) == (5, 0)
    assert (listing.depth("mail", NOW), listing.depth("other", NOW)) == (1, 0)
    assert listing.processing() == 1


def test_pending_jobs_are_counted_no_further_than_asked(store: JobStore, listing: Listing) -> None:
    accept_many(store, 5)
    claimed(store)
    assert listing.count_pending(100) == 5
    assert listing.count_pending(3) == 3


def test_pending_jobs_are_counted_in_steps(
    store: JobStore, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_COUNT_STEP", 4)
    for expected in (0, 3, 4, 5, 8, 9):
        accept_many(store, expected - listing.count_pending(100))
        assert listing.count_pending(100) == expected
        assert listing.count_pending(5) == min(5, expected)


def test_a_gauge_counts_no_further_than_its_bound(
    store: JobStore, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "_MOST_COUNTED", 5)
    for priority in ("high", "normal", "low"):
        accept_many(store, 3, priority=priority)
    assert listing.depth("default", NOW) == 5
    assert listing.scheduled("default", ago(60)) == 5


def test_the_oldest_due_job_may_have_any_priority(store: JobStore, listing: Listing) -> None:
    assert listing.oldest_due("default", NOW) is None
    accept(store, at=ago(5), priority="normal")
    accept(store, at=ago(9), priority="low")
    accept(store, at=ago(60), delay_ms=61_000)
    accept(store, at=ago(90), queue="mail")
    assert listing.oldest_due("default", NOW) == ago(9)
