"""What the sweep puts right, by calling it: on real MongoDB and Redis."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import bson
import pytest
import redis
from dramatiq.middleware import Retries
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from actors import dead_letter
from service.clock import ServerClock
from service.job import Stranded
from service.queue import redis_client
from service.queue.broker import DEAD_LETTER_ACTOR, DEAD_LETTER_QUEUE, PulseBroker
from service.settings import Settings
from service.store import Counters, JobStore, WorkerStore, commands
from service.worker.maintenance import sweep
from service.worker.maintenance.adopt import clear_orphans
from tests.factories import (
    NOW,
    accept,
    accept_many,
    ago,
    ahead,
    claimed,
    eventually,
    failed,
    finish,
    make_worker,
)
from tests.former_version import message_id_of

LATER = ahead(6)


@pytest.fixture
def broker(
    settings: Settings, redis_connection: redis.Redis, store: JobStore, clock: ServerClock
) -> Iterator[PulseBroker]:
    broker = PulseBroker(redis_client.connect(settings), window=50, middleware=[Retries()])
    broker.declare_queue("default")
    dead_letter.declare(broker, lambda: (store, clock))
    yield broker
    broker.close()


# rescue


def rescue(store: JobStore, workers: WorkerStore, counters: Counters, **more: Any) -> list[str]:
    return [h.job_id for h in sweep.rescue(store, workers, counters, NOW, **more)]


def test_the_jobs_of_a_dead_worker_may_run_again_and_of_a_living_one_go_on(
    store: JobStore, workers: WorkerStore, counters: Counters
) -> None:
    workers.beat(make_worker("alive"), processing=1)
    kept = claimed(store, worker="alive").id
    lost = [claimed(store, worker="dead").id for _ in range(2)]
    assert sorted(rescue(store, workers, counters)) == sorted(lost)
    assert store.requests.get(kept)["status"] == "processing"
    assert {store.requests.get(i)["status"] for i in lost} == {"pending"}


def test_a_rescue_twice_over_is_one(
    store: JobStore, workers: WorkerStore, counters: Counters
) -> None:
    job_id = claimed(store, worker="dead").id
    rescue(store, workers, counters)
    before = store.requests.get(job_id)
    assert rescue(store, workers, counters) == []
    assert store.requests.get(job_id) == before


def test_the_jobs_of_several_dead_workers_are_judged_each_with_its_own_company(
    store: JobStore, workers: WorkerStore, counters: Counters
) -> None:
    alone = claimed(store, worker="dead-1").id
    crowd = [claimed(store, worker="dead-2").id for _ in range(3)]
    hinted = rescue(store, workers, counters)
    assert store.requests.get(alone)["company"] == 1
    assert sorted(hinted) == sorted(crowd)


def test_after_an_outage_only_workers_without_a_document_are_dead(
    store: JobStore, workers: WorkerStore, counters: Counters, database: Database[Any]
) -> None:
    workers.beat(make_worker("late"), processing=1)
    database["workers"].update_one({"_id": "late"}, {"$set": {"heartbeat_at": ago(60)}})
    kept = claimed(store, worker="late").id
    gone = claimed(store, worker="gone")
    claimed(store, worker="gone")
    assert gone.id in rescue(store, workers, counters, believe_heartbeats=False)
    assert store.requests.get(kept)["status"] == "processing"
    rescue(store, workers, counters)
    assert store.requests.get(kept)["status"] == "pending"


def test_a_rescue_is_counted_once(
    store: JobStore, workers: WorkerStore, counters: Counters
) -> None:
    job_id = accept(store)["_id"]
    for number in range(3):
        jobs = [
            *store.claims.claim([job_id], f"dead-{number}", NOW),
            *store.claims.claim_suspects([job_id], f"dead-{number}", NOW),
        ]
        assert len(jobs) == 1
        rescue(store, workers, counters)
        rescue(store, workers, counters)
    assert store.requests.get(job_id)["status"] == "failed"
    expected = {"email": {"failed": {"crash": 1}, "retried": 2}, "_worker": {"rescued": 3}}
    assert eventually(lambda: counters.read() == expected), counters.read()


def test_a_job_that_ends_while_it_is_rescued_stays_ended_and_is_not_counted(
    store: JobStore, workers: WorkerStore, counters: Counters
) -> None:
    """The worker was only slow: its outcome came between the sweep's look and its write."""
    job, other = (claimed(store, worker="slow", max_attempts=1) for _ in range(2))
    look = store.held.stranded

    def then_it_ends(worker: str, **more: Any) -> list[Stranded]:
        found = look(worker, **more)
        if store.requests.get(job.id)["status"] == "processing":
            finish(store, job, result="in time")
        return found

    store.held.stranded = then_it_ends  # type: ignore[method-assign]
    assert rescue(store, workers, counters) == [other.id]
    assert store.requests.get(job.id)["result"] == "in time"
    assert eventually(lambda: counters.read() == {"_worker": {"rescued": 1}}), counters.read()


def test_a_job_that_its_rescue_cancels_is_counted_so(
    store: JobStore, workers: WorkerStore, counters: Counters
) -> None:
    job = claimed(store, worker="dead")
    store.requests.cancel(job.id, NOW)
    rescue(store, workers, counters)
    expected = {"email": {"cancelled": 1}, "_worker": {"rescued": 1}}
    assert eventually(lambda: counters.read() == expected), counters.read()


def held_by(store: JobStore, worker: str, count: int, **event: Any) -> list[str]:
    """The ids of so many jobs that the worker holds."""
    ids = accept_many(store, count, **event)
    store.claims.claim(ids, worker, NOW)
    return ids


class Writes:
    """The updates of jobs, as the server is sent them; the one of that number breaks off half-way,
    as where a primary steps down in the middle of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, breaking: int = 0) -> None:
        self.lengths: list[int] = []
        """How many jobs each command was for."""
        self._breaking, self._update = breaking, commands.update
        monkeypatch.setattr(commands, "update", self)

    def __call__(self, database: Database[Any], name: str, updates: Any) -> int:
        self.lengths.append(sum(len(ids_of(one)) for one in updates))
        if len(self.lengths) != self._breaking:
            return self._update(database, name, updates)
        ids = {"$in": ids_of(updates[-1])[:-1]}
        half = {**updates[-1], "q": {**updates[-1]["q"], "_id": ids}, "multi": True}
        self._update(database, name, [*updates[:-1], half])
        raise AutoReconnect("the primary has stepped down")


def ids_of(statement: Any) -> list[str]:
    by_id = statement["q"]["_id"]
    return [by_id] if isinstance(by_id, str) else by_id["$in"]


def test_however_many_jobs_a_worker_held_no_command_grows_with_them(
    store: JobStore,
    workers: WorkerStore,
    counters: Counters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = held_by(store, "dead", 1_100)
    writes = Writes(monkeypatch)
    assert rescue(store, workers, counters) == ids
    assert writes.lengths == [500, 500, 100]
    texts = {store.requests.get(i)["error"]["message"] for i in (ids[0], ids[-1])}
    assert len(texts) == 1
    assert "1100 job(s)" in texts.pop()


def test_a_rescue_reads_no_payload_and_no_text_of_the_history(
    store: JobStore, database: Database[Any]
) -> None:
    job_id = claimed(store, worker="dead", payload={"pad": "x" * 1_000_000}).id
    error = {"reason": "crash", "message": "x" * 2_000}
    history = [{"attempt": n, "outcome": "crash", "error": error} for n in range(50)]
    database["jobs"].update_one({"_id": job_id}, {"$set": {"history": history}})
    (stranded,) = store.held.stranded("dead")
    assert (stranded.job.payload, stranded.job.size) == ({}, None)
    assert stranded.crashes == 49


def test_what_is_left_of_a_rescue_that_broke_off_was_not_alone(
    store: JobStore,
    workers: WorkerStore,
    counters: Counters,
    monkeypatch: pytest.MonkeyPatch,
    database: Database[Any],
) -> None:
    ids = held_by(store, "dead", 3, max_attempts=1)
    with monkeypatch.context() as patch:
        Writes(patch, breaking=1)
        rescue(store, workers, counters)
    assert [store.requests.get(i)["status"] for i in ids] == ["pending", "pending", "processing"]
    assert [s.held for s in store.held.stranded("dead")] == [3]
    assert rescue(store, workers, counters) == [ids[2]]
    assert store.requests.get(ids[2])["status"] == "pending"
    assert database["rescues"].count_documents({}) == 0


def test_a_worker_whose_rescue_fails_does_not_hold_up_the_others(
    store: JobStore,
    workers: WorkerStore,
    counters: Counters,
    caplog: pytest.LogCaptureFixture,
) -> None:
    of = {f"dead-{n}": held_by(store, f"dead-{n}", 2) for n in range(5)}
    look = store.held.stranded

    def poisoned(worker: str, **more: Any) -> list[Stranded]:
        if worker == "dead-2":
            raise RuntimeError("as asked")
        return look(worker, **more)

    store.held.stranded = poisoned  # type: ignore[method-assign]
    others = [job_id for worker, ids in of.items() if worker != "dead-2" for job_id in ids]
    assert sorted(rescue(store, workers, counters)) == sorted(others)
    assert {store.requests.get(i)["status"] for i in of["dead-2"]} == {"processing"}
    assert "as asked" in caplog.text


def test_a_document_that_takes_nothing_more_does_not_hold_up_its_neighbours(
    store: JobStore, workers: WorkerStore, counters: Counters, database: Database[Any]
) -> None:
    full, *others = held_by(store, "dead", 5)
    limit = 16 * 1_048_576
    size = len(bson.encode(database["jobs"].find_one({"_id": full}) or {}))
    pad = {"pad": "x" * (limit - size - 50)}
    database["jobs"].update_one({"_id": full}, {"$set": pad})
    assert sorted(rescue(store, workers, counters)) == others
    assert store.requests.get(full)["status"] == "processing"
    assert eventually(lambda: counters.read() == {"_worker": {"rescued": 4}}), counters.read()
    database["jobs"].update_one({"_id": full}, {"$unset": {"pad": ""}})
    assert rescue(store, workers, counters) == [full]
    assert "5 job(s)" in store.requests.get(full)["error"]["message"]


# dead letters


def letters(broker: PulseBroker) -> list[dict[str, Any]]:
    client, base = broker.client, f"{broker.namespace}:{DEAD_LETTER_QUEUE}"
    keys = client.lrange(base, 0, -1)
    return [json.loads(client.hget(f"{base}.msgs", key)) for key in keys]  # type: ignore[arg-type]


def send_letters(store: JobStore, broker: PulseBroker, at: Any = LATER) -> int:
    return sweep.send_dead_letters(store, broker, DEAD_LETTER_ACTOR, at)


def test_a_dead_letter_that_never_arrived_is_sent_again(
    store: JobStore, broker: PulseBroker
) -> None:
    job_id = failed(store)["_id"]
    assert send_letters(store, broker) == 1
    (letter,) = letters(broker)
    assert letter["actor_name"] == DEAD_LETTER_ACTOR
    assert letter["args"][0]["args"] == [job_id]


def test_a_dead_letter_may_be_under_way_for_a_moment(store: JobStore, broker: PulseBroker) -> None:
    failed(store)
    assert send_letters(store, broker, ahead(4)) == 0


def test_dead_letters_do_not_pile_up_where_nobody_takes_them(
    store: JobStore, broker: PulseBroker
) -> None:
    ids = [failed(store)["_id"] for _ in range(3)]
    for _ in range(5):
        send_letters(store, broker)
    assert sorted(i for letter in letters(broker) for i in letter["args"][0]["args"]) == sorted(ids)


def arrive(broker: PulseBroker, letter: dict[str, Any]) -> None:
    broker.get_actor(DEAD_LETTER_ACTOR)(*letter["args"])


def test_a_dead_letter_that_arrives_is_logged_once_and_never_sent_again(
    store: JobStore, broker: PulseBroker, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = failed(store)["_id"]
    send_letters(store, broker)
    (letter,) = letters(broker)
    broker.flush(DEAD_LETTER_QUEUE)
    with caplog.at_level(logging.ERROR):
        arrive(broker, letter)
        arrive(broker, letter)
    (record,) = caplog.records
    assert (record.event_id, record.reason) == (job_id, "rejected")  # type: ignore[attr-defined]
    assert send_letters(store, broker) == 0


def test_dead_letters_that_arrive_together_are_each_logged_once(
    store: JobStore, broker: PulseBroker, caplog: pytest.LogCaptureFixture
) -> None:
    known, retried, *others = [failed(store)["_id"] for _ in range(6)]
    send_letters(store, broker)
    (letter,) = letters(broker)
    store.dead_letters.take([known], NOW)
    store.requests.retry(retried, NOW)
    with caplog.at_level(logging.ERROR):
        arrive(broker, letter)
        arrive(broker, letter)
    logged = [record.event_id for record in caplog.records]  # type: ignore[attr-defined]
    assert sorted(logged) == sorted(others)


def test_a_dead_letter_for_a_job_that_was_retried_meanwhile_changes_nothing(
    store: JobStore, broker: PulseBroker
) -> None:
    job_id = failed(store)["_id"]
    send_letters(store, broker)
    before = store.requests.retry(job_id, NOW)
    arrive(broker, letters(broker)[0])
    assert store.requests.get(job_id) == before


# orphans


def test_a_message_in_nobodys_hands_goes_once_its_job_has_ended(
    store: JobStore, broker: PulseBroker
) -> None:
    """A consumer of a former version took it off its list by waking for it, and died."""
    ids = accept_many(store, 4)
    keys = [message_id_of(job_id).encode() for job_id in ids]
    for key in keys:
        broker.client.hset("dramatiq:default.msgs", key, "{}")
    broker.client.rpush("dramatiq:default", *keys[2:])
    (fetched,) = broker.lists.fetch("default", 1)
    assert clear_orphans(store, broker, "default") == 0
    for job_id in ids:
        store.requests.cancel(job_id, NOW)
    assert clear_orphans(store, broker, "default") == 2
    assert sorted(broker.lists.stored_ids("default")) == sorted([fetched[0], keys[3]])
