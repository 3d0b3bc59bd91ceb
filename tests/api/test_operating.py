"""/health and /metrics while all is well."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pymongo.collection import Collection
from pymongo.database import Database

from service.store import Counters, Deltas, JobStore, WorkerStore
from tests.api.server import EVENT, Web
from tests.factories import accept, ago, claimed, eventually, finish, make_worker


@pytest.fixture
def workers(database: Database[Any]) -> WorkerStore:
    return WorkerStore(database, lease_seconds=8)


# health


def test_without_a_worker_it_is_degraded_and_still_200(web: Web, database: Database[Any]) -> None:
    def degraded() -> bool:
        answer = web.http.get("/health")
        assert answer.status_code == 200
        return answer.json()["status"] == "degraded"

    assert eventually(degraded)
    checks = web.http.get("/health").json()["checks"]
    assert checks["workers"] == {"status": "down", "alive": 0, "workers": []}
    for name in ("api", "redis", "mongodb"):
        assert checks[name]["status"] == "ok"
        assert checks[name]["latency_ms"] >= 0


def test_a_live_worker_is_shown(web: Web, workers: WorkerStore) -> None:
    workers.beat(make_worker("w-1", host="here", pid=42), processing=3)

    def fine() -> bool:
        return web.http.get("/health").json()["status"] == "ok"

    assert eventually(fine)
    (shown,) = web.http.get("/health").json()["checks"]["workers"]["workers"]
    assert 0 <= shown.pop("last_heartbeat_seconds_ago") < 5
    assert shown == {"id": "w-1", "host": "here", "pid": 42, "processing": 3}


def test_ready_and_live_are_short(web: Web) -> None:
    assert web.http.get("/health/live").json() == {"status": "ok"}
    assert web.http.get("/health/ready").json()["status"] in {"ok", "degraded"}


# metrics


def families(web: Web) -> dict[str, Any]:
    answer = web.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(web: Web, name: str, **labels: str) -> float | None:
    for family in families(web).values():
        for sample in family.samples:
            if sample.name == name and sample.labels.items() >= labels.items():
                return float(sample.value)
    return None


def test_totals_are_those_of_the_counters(
    web: Web, database: Database[Any], counters: Collection[Any]
) -> None:
    deltas = Deltas()
    counts = {"received": 9, "completed": 5, "retried": 2, "cancelled": 1}
    for name, amount in (counts | {"failed.error": 1, "failed.timeout": 2}).items():
        deltas.add("simulate", name, amount)
    Counters(database).add(deltas)
    eventually(lambda: value(web, "pulsequeue_jobs_received_total", type="simulate") == 9)
    expected = {
        "pulsequeue_jobs_completed_total": 5,
        "pulsequeue_job_retries_total": 2,
        "pulsequeue_jobs_cancelled_total": 1,
    }
    for name, total in expected.items():
        assert value(web, name, type="simulate") == total
    assert value(web, "pulsequeue_jobs_failed_total", type="simulate", reason="timeout") == 2
    body = web.http.get("/metrics", headers={"Accept": "application/json"}).json()
    assert {name: body[name] for name in (*counts, "failed")} == counts | {"failed": 3}


def test_gauges_tell_what_there_is(web: Web, jobs: JobStore, workers: WorkerStore) -> None:
    accept(jobs, at=ago(100))
    accept(jobs)
    web.post({**EVENT, "delay_ms": 3_600_000})
    claimed(jobs)
    workers.beat(make_worker(), processing=0)
    eventually(lambda: value(web, "pulsequeue_queue_depth", queue="default") == 2)
    oldest = value(web, "pulsequeue_oldest_pending_seconds", queue="default")
    assert oldest is not None
    assert abs(oldest - (datetime.now(UTC) - ago(100)).total_seconds()) < 10
    assert value(web, "pulsequeue_jobs_scheduled", queue="default") == 1
    assert value(web, "pulsequeue_jobs_processing") == 1
    eventually(lambda: value(web, "pulsequeue_workers_alive") == 1)
    body = web.http.get("/metrics", headers={"Accept": "application/json"}).json()
    assert body["queue_depth"] == {"default": 2}
    assert (body["processing"], body["scheduled"], body["workers_alive"]) == (1, 1, 1)
    assert body["up"] == {"mongodb": True, "redis": True}


def test_histograms_add_up(web: Web, database: Database[Any]) -> None:
    deltas = Deltas()
    for name, amount in {"run.b.0": 2, "run.b.3": 1, "run.b.15": 1, "run.sum": 400.5}.items():
        deltas.add("simulate", name, amount)
    deltas.add("simulate", "run.count", 4)
    Counters(database).add(deltas)
    name = "pulsequeue_job_run_seconds"
    eventually(lambda: value(web, f"{name}_count", type="simulate") == 4)
    family = families(web)[name]
    buckets = [s.value for s in family.samples if s.name == f"{name}_bucket"]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[2], buckets[3], buckets[-2], buckets[-1]) == (2, 2, 3, 3, 4)
    assert value(web, f"{name}_sum", type="simulate") == 400.5


def test_requests_are_timed_by_route_and_status(web: Web, database: Database[Any]) -> None:
    for _ in range(3):
        web.get("01932f4c-7a1e-7c3d-9b52-0d6f3a8e41b7")
    web.send(b"x" * 1_100_000)
    name = "pulsequeue_http_request_seconds_count"
    labels = {"method": "GET", "route": "/events/{event_id}", "status": "404"}
    eventually(lambda: value(web, name, **labels) == 3, within=8)
    assert value(web, name, method="POST", route="unmatched", status="413") == 1


def test_names_follow_the_guidelines_of_prometheus(web: Web) -> None:
    """What `promtool check metrics` looks at."""
    web.post()
    text = web.http.get("/metrics").text
    declared = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    helped = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    assert len({name for name, _ in declared}) == len(declared)
    for name, kind in declared:
        assert re.fullmatch(r"pulsequeue_[a-z0-9_]+", name)
        assert helped[name].strip()
        assert (kind == "counter") == name.endswith("_total")
        assert not re.search(r"_(milliseconds|ms|minutes|hours|bits|kb|mb)(_|$)", name)
        assert not name.endswith(("_count", "_sum", "_bucket"))
        assert kind not in name.split("_")


def test_openmetrics_is_given_to_who_asks_for_it(web: Web) -> None:
    accept_header = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = web.http.get("/metrics", headers={"Accept": accept_header})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.rstrip().endswith("# EOF")


def test_a_completion_is_not_needed_for_metrics(web: Web, jobs: JobStore) -> None:
    job = claimed(jobs)
    finish(jobs, job)
    assert web.http.get("/metrics").status_code == 200
