"""The doctor, on a real MongoDB and a real Redis that were put out of step by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from pymongo.database import Database

from infra.servers import RedisServer, free_port
from service.clock import ServerClock
from service.doctor.checks import CHECKS
from service.doctor.examination import Finding, Level, Servers, examine
from service.doctor.report import as_json, as_text, diagnose, is_well
from service.job import Hint, Outcome
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.queue.lanes import Lane
from service.settings import Settings
from service.store import Counters, Deltas, JobStore, Stores, WorkerStore
from tests.factories import accept, ago, ahead, claimed, failed, finish, make_worker
from tests.former_version import message_id_of

Document = dict[str, Any]
ORDINARY = {"queues": ("default",)}


@pytest.fixture
def broker(settings: Settings, redis_connection: redis.Redis) -> Iterator[PulseBroker]:
    broker = PulseBroker(redis_client.connect(settings))
    yield broker
    broker.close()


@pytest.fixture
def servers(
    settings: Settings, database: Database[Document], broker: PulseBroker, clock: ServerClock
) -> Servers:
    return Servers(Stores(database, settings), broker, clock)


@pytest.fixture
def worker(workers: WorkerStore) -> str:
    """A living worker's id."""
    workers.beat(make_worker(), 0)
    return "worker-1"


def found(servers: Servers, name: str) -> Finding:
    (check,) = [c for c in CHECKS if c.name == name]
    (finding,) = examine([check], servers, 0)
    return finding


def hint(document: Document, **over: Any) -> Hint:
    return replace(
        Hint(document["_id"], document["type"], document["queue"], document["priority"]), **over
    )


def test_a_system_in_step_is_well(
    servers: Servers, store: JobStore, broker: PulseBroker, worker: str, counters: Counters
) -> None:
    broker.enqueue_many([hint(accept(store))])
    deltas = Deltas()
    deltas.add("email", "received")
    counters.add(deltas)
    findings = examine(CHECKS, servers, 0)
    assert is_well(findings), as_text(findings)
    assert {f.level for f in findings} == {Level.OK}, as_text(findings)


def test_a_due_job_without_a_message_is_lost(
    servers: Servers, store: JobStore, clock: ServerClock
) -> None:
    lost = accept(store, at=ago(60))
    accept(store, at=clock.now())  # its message may still be under way
    finding = found(servers, "lost messages")
    assert (finding.level, finding.count, finding.examples) == (Level.PROBLEM, 1, (lost["_id"],))


def test_a_job_with_a_message_is_not_lost(
    servers: Servers, store: JobStore, broker: PulseBroker
) -> None:
    broker.enqueue_many([hint(accept(store, at=ago(60)))])
    assert found(servers, "lost messages").level is Level.OK


def test_no_job_is_lost_while_the_overflow_is_set(
    servers: Servers, store: JobStore, broker: PulseBroker
) -> None:
    accept(store, at=ago(60))
    broker.lanes.set_overflow(Lane("default", "email"))
    assert found(servers, "lost messages").level is Level.OK


def test_jobs_that_no_worker_takes_are_found(
    servers: Servers, store: JobStore, worker: str
) -> None:
    accept(store, at=ago(60), queue="mail", type="sms")
    accept(store, at=ago(60), queue="default")
    finding = found(servers, "queues without a worker")
    assert finding.count == 1
    assert finding.examples[0].startswith("mail: waits since ")


def test_jobs_of_dead_workers_are_found(servers: Servers, store: JobStore, worker: str) -> None:
    claimed(store, worker=worker)
    stranded = claimed(store, worker="gone")
    finding = found(servers, "jobs of dead workers")
    assert finding.examples == (f"{stranded.id} under gone",)


def test_undelivered_dead_letters_are_found(
    servers: Servers, store: JobStore, clock: ServerClock
) -> None:
    old = failed(store, at=ago(120))
    failed(store, at=clock.now())
    assert found(servers, "undelivered dead letters").examples == (old["_id"],)


def test_schedules_that_are_late_are_found(
    servers: Servers, database: Database[Document], clock: ServerClock
) -> None:
    for name, due in (("late", ago(60)), ("soon", ahead(86_400)), ("paused", None)):
        database["schedules"].insert_one({"_id": name, "next_run_at": due})
    finding = found(servers, "late schedules")
    assert finding.level is Level.PROBLEM
    assert finding.examples == (f"late: due since {ago(60):%Y-%m-%d %H:%M:%S} UTC",)


def test_an_overflow_with_nothing_waiting_is_found(
    servers: Servers, store: JobStore, broker: PulseBroker
) -> None:
    broker.lanes.set_overflow(Lane("default", "email"))
    broker.lanes.set_overflow(Lane("mail", "sms"))
    accept(store, at=ago(1), queue="mail", type="sms")
    assert found(servers, "overflow set for nothing").examples == ("default/email",)


def test_messages_of_final_and_unknown_jobs_are_noted(
    servers: Servers, store: JobStore, broker: PulseBroker, worker: str
) -> None:
    done, held, waiting = claimed(store), claimed(store), accept(store)
    finish(store, done)
    unknown = replace(done.hint, job_id="0198c5a8-0000-7000-8000-000000000000")
    broker.enqueue_many([done.hint, held.hint, hint(waiting), unknown])
    finding = found(servers, "stale messages")
    assert finding.level is Level.NOTE
    assert sorted(finding.examples) == sorted(
        [f"default: {done.id} (completed)", f"default: {unknown.job_id} (no such job)"]
    )


def test_messages_of_a_former_version_that_lie_there_for_ever_are_noted(
    servers: Servers, store: JobStore, broker: PulseBroker
) -> None:
    done = claimed(store)
    finish(store, done)
    broker.client.hset("dramatiq:default.msgs", message_id_of(done.id), "{}")
    broker.client.hset("dramatiq:dead_letter.msgs", "a-letter", "{}")
    finding = found(servers, "stale messages")
    assert finding.examples == (f"default: {done.id} (completed)",)


def test_counts_lost_with_a_killed_process_are_noted(
    servers: Servers, store: JobStore, counters: Counters
) -> None:
    finish(store, claimed(store))
    finish(store, claimed(store), Outcome.REJECTED, message="no")
    deltas = Deltas()
    for name in ("received", "received", "failed.rejected"):
        deltas.add("email", name)
    counters.add(deltas)
    finding = found(servers, "counters")
    assert (finding.level, finding.examples) == (
        Level.NOTE,
        ("completed: 1 documents, 0 counted",),
    )


def test_a_missing_and_a_changed_index_are_found(
    servers: Servers, database: Database[Document]
) -> None:
    database["jobs"].drop_index("by_type")
    database["jobs"].drop_index("expiry")
    database["jobs"].create_index("expires_at", name="expiry")
    finding = found(servers, "indexes")
    assert sorted(finding.examples) == ["by_type: missing", "expiry: not as declared"]


def test_what_a_second_look_no_longer_finds_does_not_count(
    servers: Servers, store: JobStore, broker: PulseBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = accept(store, at=ago(60)), accept(store, at=ago(60))

    def send_one(_seconds: float) -> None:
        broker.enqueue_many([hint(first)])

    monkeypatch.setattr("service.doctor.examination.time.sleep", send_one)
    assert found(servers, "lost messages").examples == (second["_id"],)


def test_many_findings_are_counted_and_a_few_are_shown(servers: Servers, store: JobStore) -> None:
    for _ in range(8):
        accept(store, at=ago(60))
    finding = found(servers, "lost messages")
    assert (finding.count, len(finding.examples)) == (8, 5)
    assert "- and 3 more" in as_text([finding])


def test_a_redis_that_does_not_answer_is_a_problem_and_the_rest_is_looked_at(
    settings: Settings, database: Database[Document]
) -> None:
    away = replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    findings = {f.check: f for f in diagnose(away, 0)}
    assert findings["Redis answers"].level is Level.PROBLEM
    assert "can't be looked for" in findings["stale messages"].meaning
    assert findings["indexes"].level is Level.OK


def test_it_changes_nothing(
    servers: Servers, store: JobStore, broker: PulseBroker, database: Database[Document]
) -> None:
    accept(store, at=ago(60))
    claimed(store, worker="gone")
    broker.lanes.set_overflow(Lane("mail", "sms"))
    before = everything(database, broker)
    examine(CHECKS, servers, 0)
    assert everything(database, broker) == before


def everything(database: Database[Document], broker: PulseBroker) -> tuple[Any, Any]:
    documents = {name: list(database[name].find()) for name in database.list_collection_names()}
    client = broker.client
    return documents, {key: client.dump(key) for key in client.scan_iter()}


# the command


def run_doctor(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"REDIS_URL": settings.redis_url, "MONGODB_URI": settings.mongodb_uri}
    return subprocess.run(
        [sys.executable, "-m", "service.doctor", "--pause-seconds", "0", *arguments],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_says_that_all_is_well(
    settings: Settings, database: Database[Document], broker: PulseBroker
) -> None:
    done = run_doctor(settings)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith("\n\nNothing is wrong.\n")


def test_the_command_reports_a_problem_as_json_and_by_its_exit_code(
    settings: Settings, store: JobStore, broker: PulseBroker
) -> None:
    accept(store, at=ago(60))
    done = run_doctor(settings, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["well"] is False
    (lost,) = [f for f in report["findings"] if f["check"] == "lost messages"]
    assert (lost["level"], lost["count"]) == ("problem", 1)


def test_the_json_is_the_text_in_other_words(servers: Servers) -> None:
    findings = examine(CHECKS, servers, 0)
    names = [f["check"] for f in json.loads(as_json(findings))["findings"]]
    assert names == [f.check for f in findings]


def test_redis_without_noeviction_is_a_warning_not_a_problem(
    settings: Settings, database: Database[Document], tmp_path: Any
) -> None:
    with RedisServer(tmp_path, extra=["--maxmemory-policy", "allkeys-lru"]) as server:
        findings = diagnose(replace(settings, redis_url=server.url), 0)
    (finding,) = [f for f in findings if f.check == "settings of the servers"]
    assert finding.level is Level.WARNING
    assert "allkeys-lru" in finding.examples[0]
    assert is_well(findings)
