"""The web while Redis or MongoDB is down, hung, or comes back; and how it starts and ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pymongo
import pytest
import redis

from infra.servers import MongoServer, RedisServer
from service.settings import Settings
from tests.api.server import EVENT, Web, running_web
from tests.factories import eventually, hints_in

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("own-redis")) as server:
        yield server


@pytest.fixture(scope="module")
def own_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    with MongoServer(tmp_path_factory.mktemp("own-mongo")) as server:
        yield server


@pytest.fixture
def own_settings(own_redis: RedisServer, own_mongo: MongoServer) -> Iterator[Settings]:
    """Settings with servers that a test may break; they are well again after it."""
    yield replace(Settings(), redis_url=own_redis.url, mongodb_uri=own_mongo.url_of("outages"))
    for server in (own_redis, own_mongo):
        if server.running:
            server.thaw()
        else:
            server.start()


@pytest.fixture
def web(tmp_path: Path, own_settings: Settings) -> Iterator[Web]:
    """A web process of this test's own."""
    with running_web(tmp_path / "web.log", own_settings, MONGODB_TIMEOUT_MS="2000") as web:
        yield web


def within(seconds: float, ask: Any) -> httpx.Response:
    began = time.monotonic()
    answer: httpx.Response = ask()
    assert time.monotonic() - began < seconds
    return answer


def at_once(seconds: float, ask: Any) -> httpx.Response:
    """In so many seconds at one of three tries: who waits for MongoDB does so each time, a busy
    machine doesn't."""
    tries = []
    for _ in range(3):
        began = time.monotonic()
        answer: httpx.Response = ask()
        tries.append(time.monotonic() - began)
        if tries[-1] < seconds:
            return answer
    raise AssertionError(f"took {tries} s")


def json_metrics(web: Web) -> dict[str, Any]:
    headers = {"Accept": "application/json"}
    answer = within(1.0, lambda: web.http.get("/metrics", headers=headers))
    assert answer.status_code == 200
    return dict(answer.json())


def prometheus_text(web: Web) -> str:
    return within(1.5, lambda: web.http.get("/metrics")).text


def health(web: Web, status: int) -> dict[str, Any]:
    answer = within(1.0, lambda: web.http.get("/health"))
    assert answer.status_code == status
    return dict(answer.json())


# Redis


def test_with_redis_hung_events_are_accepted_at_once(web: Web, own_redis: RedisServer) -> None:
    web.post()
    own_redis.freeze()
    for _ in range(20):
        assert within(0.5, web.post).status_code == 202
    checked = health(web, 200)
    assert checked["status"] == "degraded"
    assert checked["checks"]["redis"]["status"] == "down"
    eventually(lambda: json_metrics(web)["up"] == {"mongodb": True, "redis": False})
    assert 'pulsequeue_up{dependency="redis"} 0.0' in prometheus_text(web)
    own_redis.thaw()
    eventually(lambda: health(web, 200)["checks"]["redis"]["status"] == "ok")


def test_with_redis_dead_events_are_accepted_and_hints_come_back_with_it(
    web: Web, own_redis: RedisServer
) -> None:
    own_redis.kill()
    for _ in range(20):
        assert within(0.5, web.post).status_code == 202
    assert health(web, 200)["checks"]["redis"]["status"] == "down"
    own_redis.start()

    def hinted() -> bool:
        event_id = web.post().json()["id"]
        with redis.Redis(port=own_redis.port) as own:
            return event_id in {hint.job_id for hint in hints_in(own)}

    assert eventually(hinted)


# MongoDB


def test_with_mongodb_dead_events_are_refused_and_it_recovers_by_itself(
    web: Web, own_mongo: MongoServer
) -> None:
    first = web.post()
    own_mongo.kill()
    refused = within(3.0, web.post)
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["type"].endswith(":store-unavailable")
    for _ in range(5):
        assert at_once(0.2, web.post).status_code == 503
        assert at_once(0.2, lambda: web.get(first.json()["id"])).status_code == 503
        assert at_once(0.2, lambda: web.http.get("/events")).status_code == 503
    checked = health(web, 503)
    assert checked["status"] == "down"
    assert checked["checks"]["mongodb"]["status"] == "down"
    assert at_once(0.2, lambda: web.http.get("/health/live")).status_code == 200
    assert within(1.0, lambda: web.http.get("/health/ready")).status_code == 503
    eventually(lambda: json_metrics(web)["up"]["mongodb"] is False)
    own_mongo.start()
    eventually(lambda: web.post().status_code == 202, within=15)
    assert web.get(first.json()["id"]).status_code == 200


def test_with_mongodb_hung_nothing_hangs(web: Web, own_mongo: MongoServer) -> None:
    web.post()
    own_mongo.freeze()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(lambda: within(4.0, web.post)) for _ in range(8)]
        assert health(web, 503)["status"] == "down"
        assert {answer.result().status_code for answer in answers} == {503}
    assert at_once(0.3, web.post).status_code == 503
    eventually(lambda: json_metrics(web)["up"]["mongodb"] is False)
    assert 'pulsequeue_up{dependency="mongodb"} 0.0' in prometheus_text(web)
    own_mongo.thaw()
    eventually(lambda: web.post().status_code == 202, within=15)


def test_totals_are_left_out_rather_than_shown_old(web: Web, own_mongo: MongoServer) -> None:
    web.post()
    eventually(lambda: json_metrics(web)["received"])
    own_mongo.kill()
    eventually(lambda: json_metrics(web)["received"] is None, within=15)
    assert "pulsequeue_jobs_received_total" not in prometheus_text(web)


# start and end


def test_it_starts_without_mongodb_and_makes_the_indexes_later(
    tmp_path: Path, own_settings: Settings, own_mongo: MongoServer
) -> None:
    own_mongo.kill()
    fresh = replace(own_settings, mongodb_uri=own_mongo.url_of("later"))
    with running_web(tmp_path / "web.log", fresh, MONGODB_TIMEOUT_MS="2000") as web:
        assert within(0.5, web.post).status_code == 503
        assert health(web, 503)["status"] == "down"
        assert "started without MongoDB" in web.log.read_text()
        own_mongo.start()
        eventually(lambda: web.post().status_code == 202, within=15)
        with pymongo.MongoClient(own_mongo.url) as client:
            assert "idempotency_key" in client["later"]["jobs"].index_information()


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"MAX_BODY_BYTES": "many"}, "MAX_BODY_BYTES"),
        ({"EVENT_TYPE_MODULES": "no.such.module"}, "EVENT_TYPE_MODULES"),
    ],
)
def test_a_bad_setting_ends_the_start_with_its_name(
    tmp_path: Path, own_settings: Settings, env: dict[str, str], named: str
) -> None:
    web = Web(tmp_path / "web.log", own_settings, env)
    try:
        web.start(wait=False)
        assert web.wait_end() != 0
        assert named in web.log.read_text()
        assert web.log.read_text().count("Booting worker") <= 1
    finally:
        web.stop()


def test_requests_in_flight_are_answered_when_it_is_told_to_stop(web: Web) -> None:
    codes: list[int] = []
    errors: list[str] = []
    stop = threading.Event()

    def post() -> None:
        with httpx.Client(base_url=web.url, trust_env=False) as own:
            while not stop.is_set():
                try:
                    codes.append(own.post("/events", json=EVENT).status_code)
                except httpx.ConnectError:
                    return  # it doesn't listen any more
                except httpx.HTTPError as error:
                    errors.append(repr(error))
                    return

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(post) for _ in range(8)]
        eventually(lambda: len(codes) > 100, within=10)
        web.terminate()
        assert web.wait_end() == 0
        stop.set()
        for client in clients:
            client.result()
    assert set(codes) == {202}
    assert errors == []


# crashes


@pytest.mark.parametrize("point", ["web.before_insert", "web.after_insert", "web.after_enqueue"])
def test_a_retry_after_a_crash_gets_the_one_event(
    tmp_path: Path, own_settings: Settings, own_mongo: MongoServer, point: str
) -> None:
    fresh = replace(own_settings, mongodb_uri=own_mongo.url_of(point.replace(".", "_")))
    with running_web(tmp_path / "1.log", fresh, CRASH_POINT=f"{point}:2") as web:
        assert web.post().status_code == 202
        with suppress(httpx.HTTPError):  # it dies before it answers
            web.post(idempotency_key="k")
        eventually(lambda: "was sent SIGKILL" in web.log.read_text(), within=10)
        web.kill()
    with running_web(tmp_path / "2.log", fresh) as web:
        event_id = web.post(idempotency_key="k").json()["id"]
        assert web.get(event_id).status_code == 200
    with pymongo.MongoClient(own_mongo.url) as client:
        assert client[fresh.database]["jobs"].count_documents({"idempotency_key": "k"}) == 1


# back-pressure


def test_a_full_backlog_refuses_and_says_when_to_try_again(
    tmp_path: Path, own_settings: Settings, own_mongo: MongoServer
) -> None:
    fresh = replace(own_settings, mongodb_uri=own_mongo.url_of("full"))
    with running_web(tmp_path / "web.log", fresh, MAX_BACKLOG_JOBS="5") as web:
        codes: list[int] = []  # the first count is taken behind the back of the first ones

        def is_refused() -> bool:
            codes.append(web.post().status_code)
            return codes[-1] == 503

        eventually(is_refused)
        refused = web.post()
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["type"].endswith(":backlog-full")
        with pymongo.MongoClient(own_mongo.url) as client:
            jobs = client["full"]["jobs"]
            assert jobs.count_documents({}) == codes.count(202)
            jobs.delete_many({})
        eventually(lambda: web.post().status_code == 202)


@pytest.mark.slow
def test_a_thousand_keys_posted_twice_across_a_kill_are_a_thousand_events(
    tmp_path: Path, own_settings: Settings, own_mongo: MongoServer
) -> None:
    fresh = replace(own_settings, mongodb_uri=own_mongo.url_of("thousand"))
    keys = [f"key-{number}" for number in range(1_000)]

    def post(web: Web, key: str) -> str | None:
        """The event's id; None where the web died before it answered."""
        with suppress(httpx.HTTPError):
            answer = web.post({**EVENT, "payload": {"result": key}}, idempotency_key=key)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])
        return None

    with ThreadPoolExecutor(16) as pool:
        with running_web(tmp_path / "1.log", fresh) as web:
            asked = [pool.submit(post, web, key) for key in keys]
            eventually(lambda: sum(one.done() for one in asked) > 500, within=20)
            web.kill()
            first = {key: one.result() for key, one in zip(keys, asked, strict=True)}
        with running_web(tmp_path / "2.log", fresh) as web:
            second = dict(zip(keys, pool.map(lambda key: post(web, key), keys), strict=True))
    assert None in first.values()
    assert all(second[key] == event_id for key, event_id in first.items() if event_id)
    with pymongo.MongoClient(own_mongo.url) as client:
        documents = list(client["thousand"]["jobs"].find())
    assert len(documents) == 1_000
    assert {d["idempotency_key"]: d["_id"] for d in documents} == second
