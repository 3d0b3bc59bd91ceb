"""The web while some of MongoDB's answers take long though it is well: nobody else is harmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymongo
import pytest

from infra.servers import MongoServer
from service.settings import Settings
from tests.api.server import Web, running_web
from tests.factories import eventually

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    extra = ("--setParameter", "enableTestCommands=1")
    with MongoServer(tmp_path_factory.mktemp("slow-mongo"), extra=extra) as server:
        yield server


@pytest.fixture
def web(tmp_path: Path, web_settings: Settings, mongo: MongoServer) -> Iterator[Web]:
    settings = replace(web_settings, mongodb_uri=mongo.url_of("slow"))
    with running_web(tmp_path / "web.log", settings, MONGODB_TIMEOUT_MS="2000") as web:
        assert web.post().status_code == 202
        yield web


@contextmanager
def slow(mongo: MongoServer, command: str, seconds: float) -> Iterator[None]:
    """Every such command on jobs takes so long."""
    data = {
        "failCommands": [command],
        "namespace": "slow.jobs",
        "blockConnection": True,
        "blockTimeMS": int(seconds * 1_000),
    }
    with pymongo.MongoClient[Any](mongo.url) as client:
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")


@contextmanager
def posting(web: Web) -> Iterator[list[int]]:
    """Posts all the time; the answers' codes."""
    codes: list[int] = []
    stop = threading.Event()

    def post() -> None:
        while not stop.is_set():
            codes.append(web.post().status_code)

    with ThreadPoolExecutor(1) as pool:
        posted = pool.submit(post)
        try:
            yield codes
        finally:
            stop.set()
            posted.result(30)


def test_a_listing_that_takes_too_long_is_refused_alone(web: Web, mongo: MongoServer) -> None:
    with slow(mongo, "find", 5), posting(web) as codes, ThreadPoolExecutor(6) as pool:
        began = time.monotonic()
        asked = [pool.submit(web.http.get, "/events?status=failed&type=x") for _ in range(6)]
        for answer in [one.result() for one in asked]:
            assert answer.status_code == 503
            assert answer.json()["type"].endswith(":too-slow")
            assert "filter" in answer.json()["detail"]
            assert int(answer.headers["Retry-After"]) >= 1
        assert time.monotonic() - began < 12
    assert len(codes) > 10
    assert set(codes) == {202}
    eventually(lambda: web.http.get("/events").status_code == 200)


def test_retries_by_filter_that_take_long_hold_up_nobody_else(web: Web, mongo: MongoServer) -> None:
    event_id = web.post().json()["id"]
    web.http.post(f"/events/{event_id}/cancel")
    with slow(mongo, "update", 3), posting(web) as codes, ThreadPoolExecutor(6) as pool:
        ask = "/events/retry?status=cancelled"
        asked = [pool.submit(web.http.post, ask, content=b"") for _ in range(6)]
        time.sleep(0.3)  # they are under way
        began = time.monotonic()
        assert web.http.get("/events").status_code == 200
        assert web.http.post(f"/events/{event_id}/cancel").status_code == 200
        assert time.monotonic() - began < 2
        answers = [one.result() for one in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["retried"] for answer in answers) == 1
    assert set(codes) == {202}
