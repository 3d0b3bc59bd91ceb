"""`Prefer: wait=N`: an answer as soon as the event has ended, and never later than asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis

from service.queue.broker import FINISHED_CHANNEL
from service.settings import Settings
from service.store import JobStore
from tests.api.server import EVENT, Web, running_web
from tests.factories import accept, ahead, claim, claimed, eventually, finish


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(60) as pool:
        yield pool


def wait(web: Web, event_id: str, seconds: int = 10) -> httpx.Response:
    with httpx.Client(base_url=web.url, timeout=30, trust_env=False) as own:
        return own.get(f"/events/{event_id}", headers={"Prefer": f"wait={seconds}"})


def listening(hints: redis.Redis) -> bool:
    (_, count), *_ = hints.pubsub_numsub(FINISHED_CHANNEL)
    return int(count) > 0


def test_an_ended_event_is_answered_at_once(web: Web, jobs: JobStore) -> None:
    job = claimed(jobs)
    finish(jobs, job)
    answer = wait(web, job.id)
    assert answer.elapsed.total_seconds() < 1
    assert answer.headers["Preference-Applied"] == "wait=10"
    assert answer.json()["status"] == "completed"


def test_the_completion_wakes_who_waits(
    web: Web, jobs: JobStore, hints: redis.Redis, pool: ThreadPoolExecutor
) -> None:
    job = claimed(jobs)
    waiting = pool.submit(wait, web, job.id)
    eventually(lambda: listening(hints))
    assert not waiting.done()
    finish(jobs, job)
    told = time.monotonic()
    hints.publish(FINISHED_CHANNEL, f"other,{job.id},another")
    answer = waiting.result(5)
    assert time.monotonic() - told < 0.25
    assert answer.json()["status"] == "completed"


def test_a_lost_message_costs_no_more_than_a_second_or_so(
    web: Web, jobs: JobStore, hints: redis.Redis, pool: ThreadPoolExecutor
) -> None:
    job = claimed(jobs)
    waiting = pool.submit(wait, web, job.id)
    eventually(lambda: listening(hints))
    finish(jobs, job)
    ended = time.monotonic()
    assert waiting.result(5).json()["status"] == "completed"
    assert time.monotonic() - ended < 2


def test_when_the_time_is_up_the_event_is_shown_as_it_is(web: Web) -> None:
    event_id = web.post({**EVENT, "delay_ms": 60_000}).json()["id"]
    began = time.monotonic()
    answer = wait(web, event_id, seconds=1)
    assert 0.9 < time.monotonic() - began < 2
    assert answer.status_code == 200
    assert answer.json()["status"] == "pending"
    assert answer.headers["Preference-Applied"] == "wait=1"


def test_a_cancel_wakes_who_waits(web: Web, pool: ThreadPoolExecutor, hints: redis.Redis) -> None:
    event_id = web.post({**EVENT, "delay_ms": 60_000}).json()["id"]
    waiting = pool.submit(wait, web, event_id)
    eventually(lambda: listening(hints))
    web.http.post(f"/events/{event_id}/cancel")
    assert waiting.result(2).json()["status"] == "cancelled"


def test_many_wait_at_once_and_others_are_served(
    web: Web, jobs: JobStore, hints: redis.Redis, pool: ThreadPoolExecutor
) -> None:
    ids = [accept(jobs)["_id"] for _ in range(50)]
    waiting: list[Future[httpx.Response]] = [pool.submit(wait, web, i) for i in ids]
    eventually(lambda: listening(hints))
    assert web.post().elapsed.total_seconds() < 0.5
    for event_id in ids:
        finish(jobs, claim(jobs, event_id, at=ahead(600)), at=ahead(600))
    hints.publish(FINISHED_CHANNEL, ",".join(ids))
    assert {w.result(5).json()["status"] for w in waiting} == {"completed"}


def test_nobody_waits_for_what_is_not_there(web: Web) -> None:
    answer = wait(web, "01932f4c-7a1e-7c3d-9b52-0d6f3a8e41b7")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async, wait=1", "wait=1"),
        ("wait = 1", "wait=1"),
        ('WAIT="1"', "wait=1"),
        ("wait=0", "wait=0"),
        ("wait=-1", None),
        ("wait=x", None),
        ("await=5", None),
        ("return=minimal", None),
    ],
)
def test_other_preferences_are_ignored(web: Web, prefer: str, applied: str | None) -> None:
    event_id = web.post({**EVENT, "delay_ms": 60_000}).json()["id"]
    answer = web.get(event_id, prefer=prefer)
    assert answer.status_code == 200
    assert answer.headers.get("Preference-Applied") == applied


def test_when_too_many_wait_the_next_is_answered_at_once(
    tmp_path: Path, web_settings: Settings, pool: ThreadPoolExecutor
) -> None:
    with running_web(tmp_path / "web.log", web_settings, MAX_WAITERS="1") as web:
        event_id = web.post({**EVENT, "delay_ms": 60_000}).json()["id"]
        waiting = [pool.submit(wait, web, event_id, 20) for _ in range(4)]
        eventually(lambda: sum(one.done() for one in waiting) == 3)
        web.http.post(f"/events/{event_id}/cancel")
        answers = [one.result(10) for one in waiting]
    assert {answer.status_code for answer in answers} == {200}
    assert sum("Preference-Applied" in answer.headers for answer in answers) == 1
    waited = ["Preference-Applied" in answer.headers for answer in answers]
    assert waited == [answer.json()["status"] == "cancelled" for answer in answers]


def test_who_waits_is_answered_when_the_web_is_told_to_stop(
    tmp_path: Path, web_settings: Settings, pool: ThreadPoolExecutor, hints: redis.Redis
) -> None:
    with running_web(tmp_path / "web.log", web_settings) as web:
        event_id = web.post({**EVENT, "delay_ms": 60_000}).json()["id"]
        waiting = pool.submit(wait, web, event_id, 20)
        eventually(lambda: listening(hints))
        began = time.monotonic()
        web.terminate()
        assert waiting.result(5).json()["status"] == "pending"
        assert web.wait_end() == 0
        assert time.monotonic() - began < 5
