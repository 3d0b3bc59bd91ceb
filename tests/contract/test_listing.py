"""Many jobs at once, on real MongoDB."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from service.store import Filter, JobStore, Listing, bulk
from service.store import listing as listing_module
from tests.factories import (
    NOW,
    accept,
    accept_many,
    ago,
    ahead,
    claimed,
    failed,
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


# how much there is


def test_depth_and_scheduled_are_by_type_and_time(store: JobStore, listing: Listing) -> None:
    accept_many(store, 3)
    accept(store, priority="high")
    accept(store, priority="low", delay_ms=5_000)
    accept(store, type="report")
    claimed(store)
    email, both = ["email"], ["email", "report"]
    assert (listing.depth(email, NOW), listing.scheduled(email, NOW)) == (4, 1)
    assert (listing.depth(email, ahead(5)), listing.scheduled(email, ahead(5))) == (5, 0)
    assert (listing.depth(both, NOW), listing.depth(["other"], NOW)) == (5, 0)
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
    assert listing.depth(["email"], NOW) == 5
    assert listing.scheduled(["email"], ago(60)) == 5


def test_types_with_pending_jobs_are_told_of_with_their_queue(
    store: JobStore, listing: Listing
) -> None:
    accept(store, type="sms", queue="mail")
    accept(store, delay_ms=5_000)
    claimed(store, type="running")
    assert listing.pending_types() == {"email": "default", "sms": "mail"}
    assert listing.pending_types(besides=["email", "other"]) == {"sms": "mail"}
    assert listing.pending_types(besides=["email", "sms"]) == {}


def test_the_oldest_due_job_may_have_any_priority(store: JobStore, listing: Listing) -> None:
    assert listing.oldest_due(["email", "other"], NOW) is None
    accept(store, at=ago(5), priority="normal")
    accept(store, at=ago(9), priority="low")
    accept(store, at=ago(60), delay_ms=61_000)
    accept(store, at=ago(90), type="report")
    assert listing.oldest_due(["email", "other"], NOW) == ago(9)
