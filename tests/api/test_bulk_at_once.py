"""Changes of many events at the same moment, by several web processes, one of which may die."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo.database import Database

from service.settings import Settings
from service.store import JobStore
from tests.api.server import EVENT, Web, running_web
from tests.factories import eventually, new_job_document

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(180)]
COUNT, MORE_THAN_FITS = 6_000, 20_000
MINE = {"type": "simulate", "group": "mine"}


@pytest.fixture
def other_web(tmp_path: Path, web_settings: Settings) -> Iterator[Web]:
    with running_web(tmp_path / "other.log", web_settings) as other:
        yield other


def fill(jobs: JobStore, count: int, status: str = "pending") -> None:
    fields = {"status": status} | ({} if status == "pending" else {"next_attempt_at": None})
    for _ in range(count // 1_000):
        made = [new_job_document(type="simulate", labels={"group": "mine"}) for _ in range(1_000)]
        jobs.new_jobs.accept([document | fields for document in made])


def ask(web: Web, what: str) -> dict[str, Any]:
    answer = web.http.post(f"/events/{what}", json=MINE, timeout=31)
    assert answer.status_code == 200
    return dict(answer.json())


def post_until(done: Future[Any], web: Web) -> list[float]:
    """How long posting took each time, in milliseconds, sorted."""
    took = []
    while not done.done():
        began = time.monotonic()
        assert web.post(EVENT).status_code == 202
        took.append(1_000 * (time.monotonic() - began))
        time.sleep(0.005)
    return sorted(took)


def totals(database: Database[Any], name: str) -> int:
    counted = database["counters"].find_one({"_id": "simulate"}) or {}
    return int(counted.get(name, 0))


def test_two_retries_and_a_cancellation_at_once_add_up(
    web: Web, other_web: Web, jobs: JobStore, database: Database[Any], counters: Any
) -> None:
    """What one makes pending another may cancel, and a third retry again."""
    fill(jobs, COUNT // 2, "failed")
    fill(jobs, COUNT // 2)
    with ThreadPoolExecutor(3) as pool:
        retries = [pool.submit(ask, one, "retry") for one in (web, other_web)]
        cancellation = pool.submit(ask, other_web, "cancel")
        took = post_until(retries[0], web)
        retried = sum(one.result()["retried"] for one in retries)
        cancelled = cancellation.result()["cancelled"]
    slowest = f"{len(took)} posts, the slowest {took[-1]:.0f} ms"
    print(f"{retried} retried, {cancelled} cancelled; {slowest}")
    assert retried > 0
    assert cancelled > 0
    mine = {"group": "mine"}
    pending = database["jobs"].count_documents({**mine, "status": "pending"})
    each = {"$subtract": [{"$divide": ["$max_attempts", "$budget"]}, 1]}
    granted = database["jobs"].aggregate(
        [{"$match": mine}, {"$group": {"_id": None, "all": {"$sum": each}}}]
    )
    assert retried == next(iter(granted))["all"]
    assert COUNT // 2 + retried - cancelled == pending
    assert eventually(lambda: totals(database, "cancelled") == cancelled)


def test_a_web_that_dies_meanwhile_leaves_whole_events_and_the_rest_to_the_next_call(
    other_web: Web, web: Web, jobs: JobStore, database: Database[Any]
) -> None:
    fill(jobs, COUNT)
    done = {"group": "mine", "status": "cancelled"}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, other_web, "cancel")
        eventually(lambda: database["jobs"].count_documents(done) > 500, within=15)
        other_web.kill()
        with pytest.raises(httpx.TransportError):
            asked.result()

    def settled() -> int:
        """Of the statement that was under way."""
        before = database["jobs"].count_documents(done)
        time.sleep(0.5)
        return before if database["jobs"].count_documents(done) == before else 0

    before = eventually(settled)
    assert before < COUNT
    whole = {**done, "next_attempt_at": None, "finished_at": {"$ne": None}}
    assert database["jobs"].count_documents(whole) == before
    answer = ask(web, "cancel")
    assert answer["cancelled"] == answer["matched"]
    while answer.get("more"):
        before += answer["cancelled"]
        answer = ask(web, "cancel")
    assert before + answer["cancelled"] == COUNT


@pytest.mark.soak
def test_a_change_by_filter_answers_in_time_and_says_that_more_is_left(
    web: Web, jobs: JobStore, database: Database[Any]
) -> None:
    """Many of them at once share what MongoDB has to give."""
    fill(jobs, MORE_THAN_FITS)
    with ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        asked = [pool.submit(ask, web, "cancel") for _ in range(4)]
        answers = [one.result() for one in asked]
        assert time.monotonic() - began < 30
    cancelled = sum(answer["cancelled"] for answer in answers)
    assert cancelled == database["jobs"].count_documents({"status": "cancelled"})
    assert cancelled == MORE_THAN_FITS or any(answer.get("more") for answer in answers)
