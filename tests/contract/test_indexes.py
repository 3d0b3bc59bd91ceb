"""No query of ours reads the whole collection: each one that is sent is recorded and explained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandListener, CommandStartedEvent

from infra.servers import MongoServer
from service.job import Outcome, transition_after, transition_after_death
from service.settings import Settings
from service.store import BulkChanges, Filter, JobStore, Listing, Stores, ensure_indexes
from service.store.documents import Retention
from service.store.ticks import Ticks
from tests.factories import (
    NOW,
    accept,
    ago,
    ahead,
    attempt_result,
    claimed,
    failed,
    finish,
    make_worker,
    new_job_document,
)

READS = ("find", "aggregate", "count", "distinct")
WRITES = ("update", "findAndModify", "delete")


class Recorder(CommandListener):
    """Every command on jobs, as it was sent."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        name = event.command_name
        if name in (*READS, *WRITES) and event.command.get(name) == "jobs":
            self.commands.append(dict(event.command))

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


class Asked:
    """Calls a store's method and explains all that it sent."""

    def __init__(self, client: MongoClient[Any], recorder: Recorder, name: str) -> None:
        self.database: Database[Any] = client[name]
        self.store = JobStore(self.database, retention=Retention(1_000, 1_000, 1_000))
        self.listing = Listing(self.database)
        self.bulk = BulkChanges(self.database)
        self._recorder = recorder

    def plans(self, call: Callable[[], Any]) -> list[str]:
        """The stages that read, with their index: `IXSCAN lanes`, `IDHACK`, `COLLSCAN`, ..."""
        self._recorder.commands.clear()
        call()
        sent, found = list(self._recorder.commands), []
        for command in sent:
            for one in explainable(command):
                answer = self.database.command("explain", one, verbosity="queryPlanner")
                found += stages(answer)
        assert found, "nothing was asked"
        return found


def explainable(command: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The command without what belongs to its session; an update of many, one by one."""
    session = ("lsid", "txnNumber", "writeConcern", "$db", "$clusterTime", "maxTimeMS", "ordered")
    plain = {k: v for k, v in command.items() if k not in session}
    plain.pop("readConcern", None)
    for part in ("updates", "deletes"):
        if part in plain:
            yield from ({**plain, part: [one]} for one in plain[part])
            return
    yield plain


def stages(plan: Any) -> Iterator[str]:
    if isinstance(plan, list):
        for one in plan:
            yield from stages(one)
    elif isinstance(plan, dict):
        stage = plan.get("stage")
        if stage in ("COLLSCAN", "IDHACK", "IXSCAN", "COUNT_SCAN", "DISTINCT_SCAN", "TEXT"):
            by_id = " by id" if is_by_id(plan.get("indexBounds", {}).get("_id", [])) else ""
            yield f"{stage} {plan['indexName']}{by_id}" if "indexName" in plan else stage
        for name, part in plan.items():
            if name not in ("rejectedPlans", "parsedQuery", "command"):
                yield from stages(part)


def is_by_id(bounds: list[str]) -> bool:
    """Whether single ids are looked up rather than a range of them."""
    return bool(bounds) and all(len(set(b.strip("[]").split(", "))) == 1 for b in bounds)


@pytest.fixture(scope="module")
def asked(mongo_server: MongoServer) -> Iterator[Asked]:
    """A thousand jobs, most of them final, as a real collection has them."""
    recorder = Recorder()
    client: MongoClient[Any] = MongoClient(
        mongo_server.url, tz_aware=True, event_listeners=[recorder], w="majority"
    )
    asked = Asked(client, recorder, "indexes")
    ensure_indexes(asked.database)
    fill(asked.store)
    yield asked
    client.drop_database("indexes")
    client.close()


GROUPED = 12


def fill(store: JobStore) -> None:
    for status, count in (("completed", 600), ("failed", 200), ("cancelled", 99), ("pending", 200)):
        documents = [
            new_job_document(at=ago(i), type=("email", "report")[i % 2]) | {"status": status}
            for i in range(count)
        ]
        store.new_jobs.accept(documents)
    for number in range(GROUPED):
        accept(store, at=ago(900), labels={"group": "ab"[number % 2]})
    for number in range(20):
        claimed(store, worker=f"w{number % 3}", idempotency_key=f"k{number}", fingerprint="f")
    store.outcomes.finish(
        [(s.job, transition_after_death(s, NOW)) for s in store.held.stranded("w2")]
    )
    for _ in range(20):
        finish(store, claimed(store), Outcome.REJECTED)


A_JOB = "0190b8a0-0000-7000-8000-000000000000"
TYPES = ["email", "report"]


def a_page(which: Filter) -> Callable[[Asked], Any]:
    return lambda a: a.listing.page(which, 50, "1", most_bytes=1_000_000)


QUERIES: dict[str, tuple[Callable[[Asked], Any], set[str]]] = {
    "due": (
        lambda a: a.store.waiting.due(TYPES, "normal", NOW, limit=50),
        {"IXSCAN lanes"},
    ),
    "due further on": (
        lambda a: a.store.waiting.due(["email"], "low", NOW, limit=9, skip=3, since=ago(9)),
        {"IXSCAN lanes"},
    ),
    "types due": (lambda a: a.store.waiting.types_due(TYPES, NOW), {"IXSCAN lanes"}),
    "any due": (lambda a: a.store.waiting.any_due(TYPES, NOW, ago(9)), {"IXSCAN lanes"}),
    "suspects": (
        lambda a: a.store.waiting.suspects(TYPES, NOW, 10),
        {"IXSCAN suspects"},
    ),
    "dead letters": (
        lambda a: a.store.dead_letters.undelivered(NOW, 10),
        {"IXSCAN dead_letters"},
    ),
    "a page": (a_page(Filter()), {"IXSCAN _id_"}),
    "a page of a time": (
        a_page(Filter(created_after=ago(9), created_before=NOW)),
        {"IXSCAN _id_"},
    ),
    "a page of a status": (a_page(Filter(status="failed")), {"IXSCAN by_status"}),
    "a page of a type's failures": (
        a_page(Filter(status="failed", type="email")),
        {"IXSCAN failed_by_type"},
    ),
    "a page of a type's cancelled": (
        a_page(Filter(status="cancelled", type="email")),
        {"IXSCAN cancelled_by_type"},
    ),
    "a page of a type": (a_page(Filter(type="email")), {"IXSCAN by_type"}),
    "a page of a group": (
        a_page(Filter(type="email", labels={"group": "a"})),
        {"IXSCAN by_group"},
    ),
    "how many of a group to cancel": (
        lambda a: a.bulk.count_cancellable(
            Filter(status="pending", type="email", labels={"group": "a"}), time.monotonic() + 9
        ),
        {"IXSCAN by_group"},
    ),
    "a page of a schedule": (
        a_page(Filter(labels={"schedule": "nightly"})),
        {"IXSCAN by_schedule"},
    ),
    "stranded": (lambda a: a.store.held.stranded("w1"), {"IXSCAN by_status"}),
    "cancel requests": (
        lambda a: a.store.held.cancel_requests("w1", [A_JOB]),
        {"IXSCAN _id_ by id"},
    ),
    "holders": (lambda a: a.store.held.holders(), {"IXSCAN by_status"}),
    "processing": (lambda a: a.listing.processing(), {"COUNT_SCAN by_status"}),
    "pending": (lambda a: a.listing.count_pending(10), {"IXSCAN by_status"}),
    "depth": (lambda a: a.listing.depth(TYPES, NOW), {"IXSCAN lanes"}),
    "scheduled": (lambda a: a.listing.scheduled(TYPES, NOW), {"IXSCAN lanes"}),
    "oldest due": (lambda a: a.listing.oldest_due(TYPES, NOW), {"IXSCAN lanes"}),
    "pending types": (
        lambda a: a.listing.pending_types(besides=["email"]),
        {"IXSCAN lanes"},
    ),
    "how many to retry": (
        lambda a: a.bulk.count_retryable(Filter(status="cancelled"), time.monotonic() + 9),
        {"IXSCAN by_status"},
    ),
    "how many of a type to retry": (
        lambda a: a.bulk.count_retryable(Filter(type="email"), time.monotonic() + 9),
        {"IXSCAN failed_by_type", "IXSCAN cancelled_by_type"},
    ),
    "a known key": (
        lambda a: a.store.new_jobs.accept(
            [new_job_document(idempotency_key="k1", fingerprint="f")]
        ),
        {"IXSCAN idempotency_key"},
    ),
    "get": (lambda a: a.store.requests.get(accept(a.store)["_id"]), {"IDHACK"}),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_uses_its_index_and_no_other(asked: Asked, name: str) -> None:
    call, expected = QUERIES[name]
    assert set(asked.plans(lambda: call(asked))) == expected


def by_id_only(asked: Asked, call: Callable[[], Any]) -> None:
    allowed = {"IDHACK", "IXSCAN _id_ by id", "IXSCAN by_status by id"}
    assert set(asked.plans(call)) <= allowed


def by_the_id_index(asked: Asked, call: Callable[[], Any]) -> None:
    """Whatever the planner would rather take: after a flood, an index on the status costs ten times
    as much."""
    assert set(asked.plans(call)) <= {"IDHACK", "IXSCAN _id_ by id"}


def test_every_transition_finds_its_jobs_by_id(asked: Asked) -> None:
    store = asked.store
    ids = [accept(store)["_id"] for _ in range(3)]
    by_the_id_index(asked, lambda: store.claims.claim(ids[:1], "w", NOW))
    by_the_id_index(asked, lambda: store.claims.claim(ids, "w", NOW))
    by_the_id_index(asked, lambda: store.claims.claim_suspects(ids, "w", NOW))
    by_id_only(asked, lambda: store.requests.cancel(ids[0], NOW))
    by_id_only(asked, lambda: store.requests.finals(ids))
    gone = [failed(store)["_id"] for _ in range(3)]
    by_the_id_index(asked, lambda: store.dead_letters.take(gone, NOW))


def test_ticks_find_their_events_by_id_or_among_the_unconfirmed(asked: Asked) -> None:
    ticks = Ticks(asked.database)
    event = new_job_document() | {"schedule": "nightly", "unconfirmed": "x"}
    asked.store.new_jobs.accept([event])
    assert set(asked.plans(ticks.unconfirmed)) == {"IXSCAN unconfirmed"}
    by_the_id_index(asked, lambda: ticks.confirm([event["_id"]], NOW))
    allowed = {"IDHACK", "IXSCAN _id_ by id", "IXSCAN unconfirmed"}
    assert set(asked.plans(lambda: ticks.discard([event["_id"]]))) <= allowed


def test_outcomes_find_their_jobs_by_id_alike_or_not_and_late_ones_too(asked: Asked) -> None:
    store = asked.store
    jobs = store.claims.claim([accept(store)["_id"] for _ in range(4)], "w", NOW)
    alike = [(job, transition_after(job, attempt_result(result=1), 0)) for job in jobs[:3]]
    other = [(job, transition_after(job, attempt_result(Outcome.REJECTED), 0)) for job in jobs[3:]]
    by_the_id_index(asked, lambda: store.outcomes.finish(alike + other))
    by_the_id_index(asked, lambda: store.outcomes.finish(alike + other))
    by_id_only(asked, lambda: store.requests.retry(jobs[3].id, NOW))
    by_id_only(asked, lambda: store.held.progress(jobs[3], 1))


def test_a_retry_by_filter_reads_no_more_than_what_matches(asked: Asked) -> None:
    until = time.monotonic() + 9
    failed = Filter(status="failed")
    plans = asked.plans(lambda: list(asked.bulk.retry(failed, lambda: ahead(1), until)))
    assert {plan.removesuffix(" by id") for plan in plans} <= {"IXSCAN by_status", "IXSCAN _id_"}


def test_only_open_jobs_are_in_the_indexes_that_a_tick_reads(asked: Asked) -> None:
    """So that a tick costs the same with ten million finished jobs."""
    sizes = asked.database.command("validate", "jobs")["keysPerIndex"]
    assert sizes["by_group"] == GROUPED
    pending = asked.database["jobs"].count_documents({"status": "pending"})
    assert sizes["lanes"] == pending
    assert sizes["suspects"] <= pending


def test_indexes_made_twice_are_the_same(asked: Asked) -> None:
    before = asked.database["jobs"].index_information()
    ensure_indexes(asked.database)
    assert asked.database["jobs"].index_information() == before


# from a former version


def former_index(database: Database[Any]) -> None:
    """The index that a process of the former version makes at its start."""
    keys = [("queue", 1), ("priority", -1), ("next_attempt_at", 1), ("_id", 1), ("type", 1)]
    pending = {"status": "pending"}
    database["jobs"].create_index(keys, name="waiting", partialFilterExpression=pending)


@pytest.fixture
def own_stores(database: Database[Any], settings: Settings) -> Iterator[Stores]:
    yield Stores(database, settings)
    if "waiting" in database["jobs"].index_information():
        database["jobs"].drop_index("waiting")


def index_names(database: Database[Any]) -> set[str]:
    return set(database["jobs"].index_information())


def test_a_new_database_has_no_index_of_a_former_version(database: Database[Any]) -> None:
    assert "lanes" in index_names(database)
    assert "waiting" not in index_names(database)


def test_an_index_of_a_former_version_stays_while_one_of_its_workers_is_known(
    database: Database[Any], own_stores: Stores
) -> None:
    former_index(database)
    own_stores.workers.beat(make_worker("new"), 0)
    database["workers"].insert_one({"_id": "old", "heartbeat_at": ago(60), "queues": ["default"]})
    assert own_stores.drop_former_indexes() == []
    assert {"waiting", "lanes"} <= index_names(database)
    own_stores.workers.remove("old")
    assert own_stores.drop_former_indexes() == ["waiting"]
    assert own_stores.drop_former_indexes() == []
    assert "waiting" not in index_names(database)


def test_with_both_indexes_each_query_takes_its_own(
    database: Database[Any], own_stores: Stores
) -> None:
    former_index(database)
    job_id = accept(own_stores.jobs)["_id"]
    found = own_stores.jobs.waiting.due(["email"], "normal", NOW, limit=5)
    assert [hint.job_id for hint in found.hints] == [job_id]
    ensure_indexes(database)
    assert {"waiting", "lanes"} <= index_names(database)


def test_the_oldest_of_a_hundred_types_are_merged_not_sorted(asked: Asked) -> None:
    types = [f"type-{n}" for n in range(100)]
    command: dict[str, Any] = {}

    def note() -> None:
        asked.plans(lambda: asked.store.waiting.due(types, "normal", NOW, limit=50))
        command.update(asked._recorder.commands[0])

    note()
    (explained,) = explainable(command)
    plan = str(asked.database.command("explain", explained, verbosity="queryPlanner"))
    assert "SORT_MERGE" in plan
    assert "'SORT'" not in plan
