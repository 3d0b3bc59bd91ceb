"""Every transition of a job and every guard, on real MongoDB."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from service.errors import InvalidEvent, KeyReused, NotAllowedNow, StoreUnavailable, UnknownEvent
from service.job import (
    FINAL,
    AttemptResult,
    Job,
    JobStatus,
    Outcome,
    Stranded,
    transition_after,
    transition_after_death,
)
from service.store import Accepted, JobStore, commands
from service.store.documents import Retention
from tests.conftest import RETENTION
from tests.factories import (
    NOW,
    accept,
    accept_many,
    ago,
    ahead,
    attempt_result,
    claim,
    claimed,
    failed,
    finish,
    new_job_document,
    seconds,
)

LARGE = {"pad": "x" * 1_000_000}
UNKNOWN = "0190b8a0-0000-7000-8000-000000000000"


def cancelled(store: JobStore) -> dict[str, Any]:
    return store.requests.cancel(accept(store)["_id"], NOW)[0]


def completed(store: JobStore) -> dict[str, Any]:
    job = claimed(store)
    finish(store, job, result={"ok": True})
    return store.requests.get(job.id)


def rescue(store: JobStore, worker: str, *, at: Any = NOW) -> None:
    """As the sweep does with a dead worker's jobs."""
    store.outcomes.finish(
        [(s.job, transition_after_death(s, at)) for s in store.held.stranded(worker)]
    )


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    """`act` on so many threads at the same moment; what each returned."""
    gate, found = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        gate.wait(5)
        found[number] = act(number)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found


# accept


def test_a_new_job_waits_and_is_due_at_once(store: JobStore) -> None:
    job = store.requests.get(accept(store)["_id"])
    assert (job["status"], job["attempts"], job["claims"]) == ("pending", 0, 0)
    assert job["next_attempt_at"] == job["created_at"] == NOW
    assert job["history"] == []


@pytest.mark.parametrize(
    ("event", "due"),
    [
        ({"delay_ms": 1_500}, ahead(1.5)),
        ({"run_at": ahead(60)}, ahead(60)),
        ({"run_at": ago(60)}, NOW),
    ],
)
def test_a_job_for_later_waits_for_its_time(store: JobStore, event: Any, due: Any) -> None:
    assert store.requests.get(accept(store, **event)["_id"])["next_attempt_at"] == due


@pytest.mark.parametrize(
    "payload",
    [
        {"a.b": 1, "$set": {"x": 1}, "": {"$$NOW": "$x"}},
        {"$ref": "jobs", "$id": 1},
        {"deep": [{"$ref": "jobs", "$id": {"$ref": "x", "$id": None}, "$db": "d", "k": 1}]},
        {"$ref": 5, "$id": 1},
        {"__proto__": {"x": 1}, "constructor": None},
        {"text": "\r\n\x1b[31m\u202e\U0001f600", "big": 2**63 - 1, "small": -(2**63), "f": 1e300},
        {"_id": 5, "status": "completed", "attempts": 99},
    ],
)
def test_a_payload_is_data_and_comes_back_exactly(store: JobStore, payload: Any) -> None:
    job = claimed(store, payload=payload)
    assert job.payload == payload
    together = store.claims.claim(accept_many(store, 2, payload=payload), "w", NOW)
    assert [job.payload for job in together] == [payload, payload]
    finish(store, job, result=payload)
    document = store.requests.get(job.id)
    assert document["payload"] == document["result"] == payload


def test_many_are_accepted_together_in_order(store: JobStore) -> None:
    documents = [new_job_document() for _ in range(100)]
    answers = store.new_jobs.accept(documents)
    assert [a.document["_id"] for a in answers if isinstance(a, Accepted)] == [
        d["_id"] for d in documents
    ]
    assert not any(a.replayed for a in answers if isinstance(a, Accepted))


def test_the_same_documents_sent_again_are_the_same_events(
    store: JobStore, database: Database[Any]
) -> None:
    """What happens after a reply was lost."""
    documents = [new_job_document(idempotency_key=k, fingerprint="f") for k in ("a", "b", None)]
    store.new_jobs.accept(documents)
    answers = store.new_jobs.accept(documents)
    assert [a.replayed for a in answers if isinstance(a, Accepted)] == [False] * 3
    assert database["jobs"].count_documents({}) == 3


# idempotency keys


def keyed(key: str = "k", fingerprint: str = "f") -> dict[str, Any]:
    return new_job_document(idempotency_key=key, fingerprint=fingerprint)


def test_a_known_key_gives_the_first_event_again(store: JobStore) -> None:
    first = keyed()
    store.new_jobs.accept([first])
    (answer,) = store.new_jobs.accept([keyed()])
    assert isinstance(answer, Accepted)
    assert answer.replayed
    assert answer.document["_id"] == first["_id"]


def test_a_known_key_shows_how_far_the_first_event_is(store: JobStore) -> None:
    first = keyed()
    store.new_jobs.accept([first])
    finish(store, claim(store, first["_id"]))
    (answer,) = store.new_jobs.accept([keyed()])
    assert isinstance(answer, Accepted)
    assert answer.document["status"] == "completed"


def test_a_key_used_for_another_body_is_refused(store: JobStore, database: Database[Any]) -> None:
    store.new_jobs.accept([keyed()])
    (answer,) = store.new_jobs.accept([keyed(fingerprint="other")])
    assert isinstance(answer, KeyReused)
    assert database["jobs"].count_documents({}) == 1


def test_of_two_in_one_batch_with_one_key_the_first_is_the_event(store: JobStore) -> None:
    first, second, other = store.new_jobs.accept([keyed(), keyed(), keyed(fingerprint="other")])
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert not first.replayed
    assert second.replayed
    assert second.document["_id"] == first.document["_id"]
    assert isinstance(other, KeyReused)


def expiring(database: Database[Any], monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """So often, the event that holds a key expires right after another was refused for it."""
    insert, left, calls = commands.insert, [True] * times, count()

    def inserted(*args: Any) -> list[dict[str, Any]]:
        if next(calls) and left:
            insert(database, "jobs", [new_job_document(idempotency_key="k", fingerprint="f")])
        failures = insert(*args)
        if failures and left:
            left.pop()
            database["jobs"].delete_many({"idempotency_key": "k"})
        return failures

    monkeypatch.setattr(commands, "insert", inserted)


@pytest.mark.parametrize("times", [1, 3])
def test_a_key_whose_event_expires_in_that_moment_is_taken(
    store: JobStore, database: Database[Any], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    accept(store, idempotency_key="k", fingerprint="f")
    expiring(database, monkeypatch, times)
    posted = [
        new_job_document(idempotency_key="k", fingerprint="another"),
        new_job_document(),
        new_job_document(idempotency_key="k", fingerprint="another"),
    ]
    answers = store.new_jobs.accept(posted)
    assert [isinstance(a, Accepted) and a.replayed for a in answers] == [False, False, True]
    assert [a.document["_id"] for a in answers if isinstance(a, Accepted)] == [
        posted[0]["_id"],
        posted[1]["_id"],
        posted[0]["_id"],
    ]
    assert database["jobs"].count_documents({"idempotency_key": "k"}) == 1


def test_a_key_whose_events_expire_again_and_again_is_refused_in_the_end(
    store: JobStore, database: Database[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(store, idempotency_key="k", fingerprint="f")
    expiring(database, monkeypatch, 50)
    (answer,) = store.new_jobs.accept([new_job_document(idempotency_key="k", fingerprint="f")])
    assert isinstance(answer, StoreUnavailable)


def test_a_replay_leaves_its_neighbours_alone(store: JobStore, database: Database[Any]) -> None:
    store.new_jobs.accept([keyed("a")])
    answers = store.new_jobs.accept([keyed("b"), keyed("a"), new_job_document(), keyed("c")])
    assert [a.replayed for a in answers if isinstance(a, Accepted)] == [False, True, False, False]
    assert database["jobs"].count_documents({}) == 4


def test_of_many_at_once_with_one_key_one_is_stored(
    store: JobStore, database: Database[Any]
) -> None:
    answers = together(8, lambda _: store.new_jobs.accept([keyed()])[0])
    assert sum(not a.replayed for a in answers) == 1
    assert len({a.document["_id"] for a in answers}) == 1
    assert database["jobs"].count_documents({}) == 1


def test_events_without_a_key_never_meet(store: JobStore, database: Database[Any]) -> None:
    store.new_jobs.accept([new_job_document() for _ in range(3)])
    assert database["jobs"].count_documents({}) == 3


# claim


def test_a_claim_takes_a_due_job_and_charges_an_attempt(store: JobStore) -> None:
    job = claimed(store, payload={"x": 1})
    document = store.requests.get(job.id)
    assert (job.attempts, job.claims, job.worker, job.payload) == (1, 1, "worker-1", {"x": 1})
    assert (document["status"], document["worker"]) == ("processing", "worker-1")
    assert document["started_at"] == NOW


def test_of_many_who_claim_one_job_one_wins(store: JobStore) -> None:
    job_id = accept(store)["_id"]
    won = together(8, lambda i: store.claims.claim([job_id], f"worker-{i}", NOW))
    assert sum(len(jobs) for jobs in won) == 1


def test_of_many_who_claim_the_same_batch_each_job_goes_to_one(store: JobStore) -> None:
    ids = accept_many(store, 50)
    won = together(6, lambda i: store.claims.claim(ids, f"worker-{i}", NOW))
    assert sorted(job.id for jobs in won for job in jobs) == sorted(ids)
    for number, jobs in enumerate(won):
        assert {job.worker for job in jobs} <= {f"worker-{number}"}


def test_a_claim_takes_of_a_batch_what_is_free(store: JobStore) -> None:
    free = accept_many(store, 3)
    taken, gone = claimed(store).id, completed(store)["_id"]
    jobs = store.claims.claim([*free, taken, gone, UNKNOWN], "worker-2", NOW)
    assert sorted(job.id for job in jobs) == sorted(free)


def test_a_claim_of_nothing_free_is_empty(store: JobStore) -> None:
    assert store.claims.claim([UNKNOWN], "w", NOW) == []
    assert store.claims.claim([UNKNOWN, claimed(store).id], "w", NOW) == []
    assert store.claims.claim([], "w", NOW) == []


@pytest.mark.parametrize("count", [1, 2])
def test_a_job_is_not_claimed_before_its_time(store: JobStore, count: int) -> None:
    ids = [accept(store, delay_ms=60_000)["_id"] for _ in range(count)]
    assert store.claims.claim(ids, "w", NOW) == []
    assert store.claims.claim(ids, "w", ahead(59)) == []
    assert len(store.claims.claim(ids, "w", ahead(60))) == count


@pytest.mark.parametrize("count", [1, 2])
def test_a_claim_may_come_a_moment_early(store: JobStore, count: int) -> None:
    """Two processes' readings of the server's clock differ by some milliseconds."""
    ids = [accept(store, delay_ms=60_000)["_id"] for _ in range(count)]
    assert len(store.claims.claim(ids, "w", ahead(59.95))) == count


@pytest.mark.parametrize("most_bytes", [0, 450_000])
def test_jobs_beyond_the_bytes_of_a_claim_come_without_their_payload(
    store: JobStore, most_bytes: int
) -> None:
    ids = accept_many(store, 12, payload={"pad": "x" * 100_000}, request_id="r")
    jobs = store.claims.claim(ids, "worker-1", NOW, most_bytes=most_bytes)
    assert sorted(job.id for job in jobs) == ids
    whole = [job for job in jobs if job.size is not None]
    assert len(whole) == (4 if most_bytes else 1)
    assert all(job.size > 100_000 and job.payload["pad"] for job in whole if job.size)
    for job in jobs:
        assert (job.request_id, job.attempts, job.worker) == ("r", 1, "worker-1")
        assert finish(store, job, Outcome.UNSTARTED)
    assert {store.requests.get(i)["attempts"] for i in ids} == {0}


def test_a_claim_of_more_than_one_reply_of_the_server_is_whole(store: JobStore) -> None:
    """A reply has 16 MiB."""
    ids = [*accept_many(store, 10, payload=LARGE), *accept_many(store, 10, payload=LARGE)]
    jobs = store.claims.claim(ids, "w", NOW)
    assert sorted(job.id for job in jobs if job.size and job.payload == LARGE) == sorted(ids)


def test_a_claim_raises_the_fencing_token_for_ever(store: JobStore) -> None:
    job_id = accept(store, max_attempts=2)["_id"]
    tokens = []
    for outcome in (Outcome.UNSTARTED, Outcome.ERROR, Outcome.RELEASED, Outcome.ERROR):
        job = claim(store, job_id)
        tokens.append(job.claims)
        finish(store, job, outcome)
    store.requests.retry(job_id, NOW)
    tokens.append(claim(store, job_id).claims)
    assert tokens == [1, 2, 3, 4, 5]


# finish: every outcome


def test_a_completed_job_keeps_its_result(store: JobStore) -> None:
    job = claimed(store)
    assert finish(store, job, result={"a": [1]}, at=ahead(1), started_at=ahead(0.5))
    document = store.requests.get(job.id)
    assert (document["status"], document["result"]) == ("completed", {"a": [1]})
    assert document["finished_at"] == document["updated_at"] == ahead(1)
    assert document["error"] is None
    assert document["next_attempt_at"] is None
    assert "claim" not in document
    assert document["history"] == [
        {
            "attempt": 1,
            "worker": "worker-1",
            "started_at": ahead(0.5),
            "finished_at": ahead(1),
            "outcome": "completed",
            "error": None,
        }
    ]


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.TIMEOUT])
def test_a_failed_attempt_waits_for_its_next(store: JobStore, outcome: Outcome) -> None:
    job = claimed(store)
    finish(store, job, outcome, delay_ms=2_000, message="boom")
    document = store.requests.get(job.id)
    assert (document["status"], document["attempts"]) == ("pending", 1)
    assert document["next_attempt_at"] == ahead(2)
    assert document["error"] == {"reason": outcome, "message": "boom"}
    assert document["history"][0]["outcome"] == outcome
    assert document["finished_at"] is None


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.TIMEOUT])
def test_the_last_failed_attempt_fails_the_job(store: JobStore, outcome: Outcome) -> None:
    job = claimed(store, max_attempts=1)
    finish(store, job, outcome, message="boom")
    document = store.requests.get(job.id)
    assert (document["status"], document["error"]["reason"]) == ("failed", outcome)
    assert document["dead_letter_due"] == NOW


def test_a_rejected_job_fails_at_once(store: JobStore) -> None:
    document = failed(store)
    assert (document["status"], document["attempts"]) == ("failed", 1)
    assert document["error"] == {"reason": "rejected", "message": "no"}


def test_a_handler_that_stopped_leaves_its_job_cancelled(store: JobStore) -> None:
    job = claimed(store)
    finish(store, job, Outcome.CANCELLED)
    document = store.requests.get(job.id)
    assert document["status"] == "cancelled"
    assert document["history"][0]["outcome"] == "cancelled"


def test_a_job_given_back_unstarted_costs_nothing_and_leaves_no_trace(store: JobStore) -> None:
    job = claimed(store)
    finish(store, job, Outcome.UNSTARTED, at=ahead(3))
    document = store.requests.get(job.id)
    assert (document["status"], document["attempts"], document["history"]) == ("pending", 0, [])
    assert document["next_attempt_at"] == NOW


def test_a_job_given_back_while_it_ran_costs_nothing_and_says_so(store: JobStore) -> None:
    job = claimed(store)
    finish(store, job, Outcome.RELEASED, message="the worker stopped")
    document = store.requests.get(job.id)
    assert (document["status"], document["attempts"]) == ("pending", 0)
    assert [h["outcome"] for h in document["history"]] == ["released"]


def test_a_job_cancelled_before_it_began_ends_so_uncharged(store: JobStore) -> None:
    job = claimed(store)
    store.requests.cancel(job.id, NOW)
    job.cancel_requested = True
    assert finish(store, job, Outcome.UNSTARTED)
    document = store.requests.get(job.id)
    assert (document["status"], document["attempts"], document["history"]) == ("cancelled", 0, [])
    assert document["finished_at"] == NOW


def test_an_error_of_an_earlier_attempt_is_gone_when_the_job_completes(store: JobStore) -> None:
    job = claimed(store)
    finish(store, job, Outcome.ERROR, message="boom")
    finish(store, claim(store, job.id), result=1)
    document = store.requests.get(job.id)
    assert (document["status"], document["error"]) == ("completed", None)
    assert [h["error"] and h["error"]["message"] for h in document["history"]] == ["boom", None]


def test_many_that_end_alike_are_written_each_as_itself(store: JobStore) -> None:
    ids = accept_many(store, 20)
    jobs = store.claims.claim(ids, "worker-1", NOW)
    transitions = [
        (job, transition_after(job, attempt_result(result=i % 3 or None), 0))
        for i, job in enumerate(jobs)
    ]
    assert store.outcomes.finish(transitions) == set()
    for i, job in enumerate(jobs):
        assert store.requests.get(job.id)["result"] == (i % 3 or None)


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.CANCELLED, Outcome.ERROR])
def test_many_that_end_alike_in_any_way_are_one_statement(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    sent: list[int] = []
    update = commands.update

    def noted(database: Any, name: str, updates: Sequence[Any]) -> int:
        sent.append(len(updates))
        return update(database, name, updates)

    jobs = store.claims.claim(accept_many(store, 5), "worker-1", NOW)
    monkeypatch.setattr(commands, "update", noted)
    batch = [(job, transition_after(job, attempt_result(outcome, message="no"), 0)) for job in jobs]
    assert store.outcomes.finish(batch) == set()
    assert sent == [1]
    for job, transition in batch:
        document = store.requests.get(job.id)
        assert document["status"] == transition.status
        assert [h["outcome"] for h in document["history"]] == [outcome]


def test_a_mixed_batch_is_written_each_as_itself(store: JobStore) -> None:
    jobs = store.claims.claim(accept_many(store, 40), "worker-1", NOW)
    ends = [
        attempt_result(result=1),
        attempt_result(Outcome.REJECTED, message="one"),
        attempt_result(Outcome.REJECTED, message="two"),
        attempt_result(Outcome.ERROR, message="one"),
        attempt_result(Outcome.ERROR, message="one", started_at=ago(1)),
    ]
    batch = [(job, transition_after(job, ends[i % 5], i % 2)) for i, job in enumerate(jobs)]
    assert store.outcomes.finish(batch) == set()
    assert store.outcomes.finish(batch) == set()
    for job, transition in batch:
        document = store.requests.get(job.id)
        assert document["status"] == transition.status
        assert document["error"] == transition.error
        assert document["next_attempt_at"] == transition.next_attempt_at
        (entry,) = document["history"]
        assert (entry["error"], entry["outcome"]) == (transition.error, transition.outcome)
        assert entry["started_at"] == (transition.started_at or job.started_at)
        assert document.get("dead_letter_due") == (NOW if transition.status == "failed" else None)


def test_many_large_results_are_more_than_one_message_to_the_server(store: JobStore) -> None:
    """Together they have more than the 48 million bytes that a message may have."""
    jobs = store.claims.claim(accept_many(store, 60), "worker-1", NOW)
    attempt_results = [
        AttemptResult(Outcome.COMPLETED, NOW, f"{n:02}" + "x" * 1_000_000) for n in range(60)
    ]
    batch = [
        (job, transition_after(job, end, 0)) for job, end in zip(jobs, attempt_results, strict=True)
    ]
    assert store.outcomes.finish(batch) == set()
    results = {store.requests.get(job.id)["result"][:2] for job in jobs}
    assert results == {f"{n:02}" for n in range(60)}


def test_results_that_grow_as_bson_are_more_than_one_message_too(store: JobStore) -> None:
    """A digit and its comma become twelve bytes: together more than the 16 MiB of a command."""
    jobs = store.claims.claim(accept_many(store, 20), "worker-1", NOW)
    attempt_results = [
        AttemptResult(Outcome.COMPLETED, NOW, [n] * 100_000, result_bytes=200_001)
        for n in range(20)
    ]
    batch = [
        (job, transition_after(job, end, 0)) for job, end in zip(jobs, attempt_results, strict=True)
    ]
    assert store.outcomes.finish(batch) == set()
    assert {store.requests.get(job.id)["result"][0] for job in jobs} == set(range(20))


def test_jobs_that_end_alike_under_different_claims_are_each_guarded_by_their_own(
    store: JobStore,
) -> None:
    first, second = (accept(store)["_id"] for _ in range(2))
    finish(store, claim(store, first), Outcome.UNSTARTED)
    jobs = store.claims.claim([first, second], "worker-1", NOW)
    assert (
        store.outcomes.finish(
            [(job, transition_after(job, attempt_result(result=1), 0)) for job in jobs]
        )
        == set()
    )
    assert {store.requests.get(job.id)["status"] for job in jobs} == {"completed"}


def test_jobs_that_end_alike_in_different_attempts_each_keep_their_own_history(
    store: JobStore,
) -> None:
    first, second = (accept(store)["_id"] for _ in range(2))
    finish(store, claim(store, first), Outcome.UNSTARTED)
    finish(store, claim(store, second), Outcome.ERROR)
    jobs = store.claims.claim([first, second], "worker-1", NOW)
    store.outcomes.finish(
        [(job, transition_after(job, attempt_result(result=1), 0)) for job in jobs]
    )
    assert store.requests.get(first)["history"][-1]["attempt"] == 1
    assert store.requests.get(second)["history"][-1]["attempt"] == 2


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0, False), ("1", 1)])
def test_results_that_python_calls_equal_stay_apart(
    store: JobStore, one: object, other: object
) -> None:
    jobs = store.claims.claim(accept_many(store, 2), "w", NOW)
    store.outcomes.finish(
        [
            (j, transition_after(j, attempt_result(result=r), 0))
            for j, r in zip(jobs, (one, other), strict=True)
        ]
    )
    found = [store.requests.get(job.id)["result"] for job in jobs]
    assert [(type(r), r) for r in found] == [(type(one), one), (type(other), other)]


def test_the_history_keeps_the_last_attempts_only(database: Database[Any]) -> None:
    store = JobStore(database, history_limit=3)
    job_id = accept(store, max_attempts=10)["_id"]
    for _ in range(5):
        finish(store, claim(store, job_id), Outcome.ERROR)
    document = store.requests.get(job_id)
    assert [h["attempt"] for h in document["history"]] == [3, 4, 5]
    assert document["attempts"] == 5


# the fence


def zombie(store: JobStore, *, then: Outcome | None = None) -> tuple[Job, Job]:
    """A job that was taken away from its first worker and claimed by a second one."""
    first = claimed(store, worker="zombie")
    rescue(store, "zombie")
    (second,) = [
        *store.claims.claim([first.id], "worker-2", NOW),
        *store.claims.claim_suspects([first.id], "worker-2", NOW),
    ]
    if then is not None:
        finish(store, second, then, result="second", at=ahead(1))
    return first, second


@pytest.mark.parametrize("late", [o for o in Outcome if o is not Outcome.UNSTARTED])
@pytest.mark.parametrize("then", [None, Outcome.COMPLETED, Outcome.ERROR, Outcome.REJECTED])
def test_a_late_outcome_is_dropped_and_reported(
    store: JobStore, late: Outcome, then: Outcome | None
) -> None:
    first, _ = zombie(store, then=then)
    before = store.requests.get(first.id)
    assert not finish(store, first, late, result="late", at=ahead(2))
    assert store.requests.get(first.id) == before


def test_a_late_give_back_changes_nothing(store: JobStore) -> None:
    first, _ = zombie(store)
    before = store.requests.get(first.id)
    finish(store, first, Outcome.UNSTARTED)
    assert store.requests.get(first.id) == before


def test_a_late_cancellation_is_reported_even_where_nothing_had_started(store: JobStore) -> None:
    first, _ = zombie(store)
    first.cancel_requested = True
    assert not finish(store, first, Outcome.UNSTARTED)


def test_the_same_worker_is_fenced_from_its_own_former_claim(store: JobStore) -> None:
    first = claimed(store)
    finish(store, first, Outcome.UNSTARTED)
    second = claim(store, first.id)
    assert second.attempts == first.attempts
    assert not finish(store, first, result="late", at=ahead(1))
    assert finish(store, second, result="right", at=ahead(2))
    assert store.requests.get(first.id)["result"] == "right"


def test_two_workers_that_end_one_attempt_alike_at_the_same_moment_are_told_apart(
    store: JobStore,
) -> None:
    first = claimed(store, worker="zombie")
    finish(store, first, Outcome.UNSTARTED)
    second = claim(store, first.id, worker="worker-2")
    assert second.attempts == first.attempts
    assert finish(store, second)
    assert not finish(store, first)


def roll_back(database: Database[Any], jobs: Sequence[Job]) -> None:
    """As a primary does that comes back: what it wrote and no other had is gone, so the next claim
    takes the same number."""
    before = {"$set": {"status": "pending"}, "$inc": {"attempts": -1, "claims": -1}}
    ids = {"$in": [job.id for job in jobs]}
    database["jobs"].update_many({"_id": ids}, before | {"$unset": {"claim": "", "worker": ""}})


def claimed_twice(
    store: JobStore, database: Database[Any], count: int, *, second: str
) -> tuple[list[Job], list[Job]]:
    """Claims that a change of primary took back, and the next ones of the same jobs."""
    ids = accept_many(store, count)
    first = store.claims.claim(ids, "worker-1", NOW)
    roll_back(database, first)
    again = store.claims.claim(ids, second, NOW)
    assert [job.claims for job in again] == [job.claims for job in first] == [1] * count
    return first, again


@pytest.mark.parametrize("second", ["worker-2", "worker-1"])
@pytest.mark.parametrize("count", [1, 3])
def test_of_two_claims_with_one_number_only_the_one_that_stands_counts(
    store: JobStore, database: Database[Any], count: int, second: str
) -> None:
    late, right = claimed_twice(store, database, count, second=second)
    late_end, right_end = (
        attempt_result(result="late"),
        attempt_result(result="right", finished_at=ahead(1)),
    )
    assert store.outcomes.finish([(job, transition_after(job, late_end, 0)) for job in late]) == {
        j.id for j in late
    }
    assert {store.requests.get(job.id)["status"] for job in late} == {"processing"}
    assert (
        store.outcomes.finish([(job, transition_after(job, right_end, 0)) for job in right])
        == set()
    )
    assert [store.requests.get(job.id)["result"] for job in right] == ["right"] * count


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.COMPLETED])
def test_a_claim_that_was_taken_back_ends_nobody_elses(
    store: JobStore, database: Database[Any], outcome: Outcome
) -> None:
    (late,), (right,) = claimed_twice(store, database, 1, second="worker-2")
    finish(store, late, outcome)
    assert store.requests.get(right.id)["status"] == "processing"
    assert finish(store, right)


def test_a_claim_that_was_taken_back_shows_no_progress(
    store: JobStore, database: Database[Any]
) -> None:
    (late,), (right,) = claimed_twice(store, database, 1, second="worker-2")
    store.held.progress(late, "late")
    assert "progress" not in store.requests.get(late.id)
    store.held.progress(right, "right")
    assert store.requests.get(right.id)["progress"] == "right"


def test_a_rescue_takes_no_job_from_who_claimed_it_under_the_same_number(
    store: JobStore, database: Database[Any]
) -> None:
    lost = claimed(store, worker="dead")
    stranded = store.held.stranded("dead")
    roll_back(database, [lost])
    right = claim(store, lost.id, worker="worker-2")
    assert store.outcomes.finish([(s.job, transition_after_death(s, NOW)) for s in stranded]) == {
        lost.id
    }
    assert finish(store, right)


def test_a_late_cancellation_is_not_taken_for_anothers_under_the_same_number(
    store: JobStore, database: Database[Any]
) -> None:
    (late,), (right,) = claimed_twice(store, database, 1, second="worker-2")
    late.cancel_requested = right.cancel_requested = True
    assert finish(store, right, Outcome.UNSTARTED)
    assert finish(store, right, Outcome.UNSTARTED), "sent again after a lost reply"
    assert not finish(store, late, Outcome.UNSTARTED)


def test_the_same_end_of_jobs_from_several_claims_is_guarded_by_each_ones_own(
    store: JobStore, database: Database[Any]
) -> None:
    """One worker claimed them all, and one of them twice."""
    (late,), (right,) = claimed_twice(store, database, 1, second="worker-1")
    others = store.claims.claim(accept_many(store, 2), "worker-1", NOW)
    batch = [(job, transition_after(job, attempt_result(result=1), 0)) for job in [late, *others]]
    assert store.outcomes.finish(batch) == {late.id}
    assert finish(store, right)


def test_a_fenced_outcome_leaves_its_neighbours_alone(store: JobStore) -> None:
    lost, _ = zombie(store)
    kept = [claimed(store) for _ in range(3)]
    batch = [
        (job, transition_after(job, attempt_result(result=job.id), 0))
        for job in [kept[0], lost, *kept[1:]]
    ]
    assert store.outcomes.finish(batch) == {lost.id}
    assert [store.requests.get(job.id)["status"] for job in kept] == ["completed"] * 3


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.CRASH])
def test_a_batch_sent_again_is_recognised(store: JobStore, outcome: Outcome) -> None:
    """After a lost reply: it is neither applied twice nor taken for late."""
    jobs = [claimed(store, max_attempts=2) for _ in range(3)]
    batch = [(job, transition_after(job, attempt_result(outcome, result=1), 0)) for job in jobs]
    assert store.outcomes.finish(batch) == set()
    before = [store.requests.get(job.id) for job in jobs]
    assert store.outcomes.finish(batch) == set()
    assert [store.requests.get(job.id) for job in jobs] == before


def test_a_batch_sent_again_is_recognised_though_another_attempt_followed(
    store: JobStore,
) -> None:
    job = claimed(store)
    batch = [(job, transition_after(job, attempt_result(Outcome.ERROR), 0))]
    store.outcomes.finish(batch)
    finish(store, claim(store, job.id, worker="worker-2"), result=2, at=ahead(1))
    assert store.outcomes.finish(batch) == set()


def test_what_cannot_be_stored_is_told_from_a_server_that_is_away(store: JobStore) -> None:
    """The first would be sent again for ever."""
    deep: Any = 1
    for _ in range(190):
        deep = [deep]
    for result in (2**63, deep, {"a\0b": 1}, "x" * 17_000_000):
        job = claimed(store)
        with pytest.raises(InvalidEvent):
            finish(store, job, result=result)
        assert store.requests.get(job.id)["status"] == "processing"


def test_a_result_too_large_beside_what_is_there_cannot_be_stored(store: JobStore) -> None:
    job = claimed(store, payload={"x": "x" * 9_000_000})
    with pytest.raises(InvalidEvent):
        finish(store, job, result="x" * 9_000_000)
    assert finish(store, job, result="small")


# what waits


def due(store: JobStore, *, at: Any = NOW, priority: str = "normal", **more: Any) -> list[str]:
    types = more.pop("types", ["email", "report"])
    more = {"limit": 100} | more
    return [hint.job_id for hint in store.waiting.due(types, priority, at, **more).hints]


def test_due_jobs_come_oldest_first(store: JobStore) -> None:
    ids = accept_many(store, 5)
    assert due(store) == ids
    assert due(store, limit=2) == ids[:2]
    assert due(store, limit=2, skip=1) == ids[1:3]


def test_a_job_of_the_same_moment_comes_by_its_id(store: JobStore) -> None:
    ids = [accept(store, at=ago(1))["_id"] for _ in range(5)]
    assert due(store) == sorted(ids)


def test_due_order_is_by_the_time_due_not_by_the_time_posted(store: JobStore) -> None:
    late = accept(store, at=ago(9), delay_ms=8_000)["_id"]
    early = accept(store, at=ago(5))["_id"]
    assert due(store) == [early, late]


def test_only_what_is_due_is_due(store: JobStore) -> None:
    scheduled = accept(store, delay_ms=1_000)["_id"]
    claimed(store)
    completed(store)
    cancelled(store)
    assert due(store) == []
    assert due(store, at=ahead(1)) == [scheduled]


def test_types_and_priorities_are_apart(store: JobStore) -> None:
    high = accept(store, priority="high")["_id"]
    low = accept(store, priority="low")["_id"]
    accept(store, type="other")
    assert due(store, priority="high") == [high]
    assert due(store, priority="low") == [low]
    assert due(store, priority="normal") == []


def test_due_can_be_asked_for_some_types_only(store: JobStore) -> None:
    email = accept(store, type="email")["_id"]
    accept(store, type="report")
    assert due(store, types=["email", "other"]) == [email]


def test_due_tells_since_when_and_can_leave_out_what_was_due_before(store: JobStore) -> None:
    ids = accept_many(store, 3)
    found = store.waiting.due(["email"], "normal", NOW, limit=9)
    assert found.oldest == NOW - timedelta(milliseconds=3)
    assert due(store, since=NOW - timedelta(milliseconds=2)) == ids[1:]
    assert store.waiting.due(["mail"], "normal", NOW, limit=9).oldest is None


def test_due_tells_where_a_job_belongs_and_since_when_it_waits(store: JobStore) -> None:
    accept(store, at=ago(5), queue="mail", type="report")
    accept(store, at=ago(3), type="email")
    found = store.waiting.due(["email", "report"], "normal", NOW, limit=9)
    assert [(hint.queue, hint.type) for hint in found.hints] == [
        ("mail", "report"),
        ("default", "email"),
    ]
    assert found.times == [ago(5), ago(3)]


def test_of_many_types_each_gets_its_turn(store: JobStore) -> None:
    types = [f"type-{n:03}" for n in range(250)]
    ids = {accept(store, type=name)["_id"] for name in types}
    seen = {job_id for _ in range(3) for job_id in due(store, types=types)}
    assert seen == ids
    assert due(store, types=[f"other-{n}" for n in range(250)]) == []
    assert due(store, types=[]) == []


def test_where_there_are_many_types_one_that_has_something_is_found(store: JobStore) -> None:
    types = [f"type-{n:03}" for n in range(250)]
    job_id = accept(store, type="type-120")["_id"]
    assert [due(store, types=types) for _ in range(3)] == [[job_id]] * 3


# which types have something


def test_types_are_due_whose_oldest_job_is(store: JobStore) -> None:
    for name, priority in (("email", "low"), ("report", "high"), ("sms", "normal")):
        accept(store, type=name, priority=priority, at=ago(5))
    accept(store, type="late", delay_ms=5_000)
    claimed(store, type="running")
    names = ["email", "late", "report", "running"]
    assert store.waiting.types_due(names, NOW) == ["email", "report"]
    assert store.waiting.types_due(names, ago(6)) == []
    assert store.waiting.types_due(names, ahead(6)) == ["email", "late", "report"]
    assert store.waiting.any_due(names, NOW)
    assert not store.waiting.any_due(["late", "other"], NOW)


def test_types_due_are_told_of_from_one_on_and_so_many(store: JobStore) -> None:
    names = [f"type-{n}" for n in range(9)]
    for name in names:
        accept(store, type=name)
    assert store.waiting.types_due(names, NOW, most=4) == names[:4]
    assert store.waiting.types_due(names, NOW, after="type-5") == names[6:]


def test_types_that_became_due_lately_can_be_asked_for(store: JobStore) -> None:
    accept(store, type="email", at=ago(60))
    accept(store, type="report", at=ago(2))
    assert store.waiting.types_due(["email", "report"], NOW, since=ago(4)) == ["report"]
    assert not store.waiting.any_due(["email"], NOW, since=ago(4))


# rescue


def test_the_jobs_of_a_dead_worker_are_found(store: JobStore) -> None:
    mine = claimed(store, worker="dead").id
    claimed(store, worker="alive")
    finish(store, claimed(store, worker="dead"))
    assert [s.job.id for s in store.held.stranded("dead")] == [mine]
    assert store.held.holders() == {"dead", "alive"}


def test_each_stranded_job_knows_how_many_its_worker_held(store: JobStore) -> None:
    for _ in range(3):
        claimed(store, worker="dead")
    assert [s.held for s in store.held.stranded("dead")] == [3, 3, 3]


def killed(store: JobStore, job_id: str, times: int = 1, *, company: int = 0) -> Stranded:
    """A job whose worker was killed so often, alone or beside others; as the sweep last saw it."""
    for number in range(times):
        worker = f"victim-{number}"
        jobs = [
            *store.claims.claim([job_id], worker, ahead(number)),
            *store.claims.claim_suspects([job_id], worker, ahead(number)),
        ]
        assert len(jobs) == 1
        for _ in range(company):
            claimed(store, worker=worker)
        stranded = store.held.stranded(worker)
        (seen,) = [s for s in stranded if s.job.id == job_id]
        rescue(store, worker, at=ahead(number))
    return seen


def test_a_job_that_was_alone_when_its_process_died_is_charged_and_a_suspect(
    store: JobStore,
) -> None:
    job_id = accept(store)["_id"]
    killed(store, job_id)
    document = store.requests.get(job_id)
    assert (document["status"], document["attempts"]) == ("pending", 1)
    assert (document["company"], document["deaths"]) == (1, 1)
    assert document["error"]["reason"] == "crash"
    assert [h["outcome"] for h in document["history"]] == ["crash"]


def test_the_third_crash_alone_fails_the_job(store: JobStore) -> None:
    job_id = accept(store, max_attempts=50)["_id"]
    seen = killed(store, job_id, times=3)
    document = store.requests.get(job_id)
    assert seen.crashes == 2
    assert (document["status"], document["error"]["reason"]) == ("failed", "crash")
    assert document["attempts"] == 3


def test_crashes_are_counted_anew_after_a_clients_retry(store: JobStore) -> None:
    job_id = accept(store)["_id"]
    killed(store, job_id, times=3)
    store.requests.retry(job_id, NOW)
    killed(store, job_id, times=2)
    assert store.requests.get(job_id)["status"] == "pending"


def test_a_first_death_in_company_makes_nobody_a_suspect(store: JobStore) -> None:
    job_id = accept(store)["_id"]
    killed(store, job_id, company=20)
    document = store.requests.get(job_id)
    assert (document["status"], document["deaths"]) == ("pending", 1)
    assert "company" not in document
    assert len(store.claims.claim([job_id], "w", ahead(1))) == 1


def test_a_second_death_in_company_costs_nothing_and_makes_a_suspect(store: JobStore) -> None:
    job_id = accept(store)["_id"]
    killed(store, job_id, times=2, company=31)
    document = store.requests.get(job_id)
    assert (document["status"], document["attempts"]) == ("pending", 1)
    assert (document["company"], document["deaths"]) == (4, 2)


def suspects(store: JobStore, **more: Any) -> list[tuple[str, int]]:
    asked = {"types": ["email"], "now": ahead(60), "limit": 100} | more
    return store.waiting.suspects(**asked)


def test_a_suspect_is_claimed_as_such_and_not_with_others(store: JobStore) -> None:
    job_id = accept(store)["_id"]
    killed(store, job_id)
    assert store.claims.claim([job_id], "w", ahead(1)) == []
    assert suspects(store) == [(job_id, 1)]
    (job,) = store.claims.claim_suspects([job_id], "w", ahead(1))
    assert (job.company, job.deaths) == (1, 1)
    assert suspects(store) == []


def test_no_other_job_is_claimed_as_a_suspect(store: JobStore) -> None:
    assert store.claims.claim_suspects([accept(store)["_id"]], "w", NOW) == []


def test_suspects_that_may_have_most_company_come_first(store: JobStore) -> None:
    alone, crowd = accept(store)["_id"], accept(store)["_id"]
    killed(store, alone)
    killed(store, crowd, times=2, company=31)
    assert suspects(store) == [(crowd, 4), (alone, 1)]


def test_a_suspect_that_waits_for_its_backoff_holds_up_nobody(store: JobStore) -> None:
    job_id = accept(store)["_id"]
    killed(store, job_id)
    (job,) = store.claims.claim_suspects([job_id], "w", ahead(1))
    finish(store, job, Outcome.ERROR, at=ahead(1), delay_ms=300_000)
    assert store.requests.get(job_id)["company"] == 1
    assert suspects(store) == []
    assert suspects(store, now=ahead(400)) == [(job_id, 1)]


def test_suspects_of_other_types_are_left_to_who_knows_them(store: JobStore) -> None:
    killed(store, accept(store, type="new")["_id"])
    assert suspects(store) == []


def test_a_retry_by_a_client_clears_all_suspicion(store: JobStore) -> None:
    job_id = accept(store)["_id"]
    killed(store, job_id, times=3)
    document = store.requests.retry(job_id, NOW)
    assert not {"company", "deaths", "dead_letter_due", "expires_at"} & document.keys()
    assert len(store.claims.claim([job_id], "w", NOW)) == 1


# cancel


def test_a_pending_job_is_cancelled_at_once(store: JobStore) -> None:
    job_id = accept(store)["_id"]
    document, made = store.requests.cancel(job_id, ahead(1))
    assert made
    assert (document["status"], document["finished_at"]) == ("cancelled", ahead(1))
    assert document["next_attempt_at"] is None
    assert store.claims.claim([job_id], "w", ahead(2)) == []


def test_a_processing_job_is_asked_to_stop(store: JobStore) -> None:
    job = claimed(store)
    document, made = store.requests.cancel(job.id, NOW)
    assert not made
    assert (document["status"], document["cancel_requested"]) == ("processing", True)
    assert store.held.cancel_requests("worker-1", [job.id]) == [job.id]
    assert store.held.cancel_requests("worker-2", [job.id]) == []


def test_a_cancelled_job_may_be_cancelled_again(store: JobStore) -> None:
    job_id = cancelled(store)["_id"]
    document, made = store.requests.cancel(job_id, ahead(9))
    assert not made
    assert document["finished_at"] == NOW


def test_a_completed_or_failed_job_cannot_be_cancelled(store: JobStore) -> None:
    for document in (completed(store), failed(store)):
        with pytest.raises(NotAllowedNow, match=document["status"]):
            store.requests.cancel(document["_id"], NOW)


def test_an_unknown_job_cannot_be_read_cancelled_or_retried(store: JobStore) -> None:
    for ask in (
        lambda: store.requests.get(UNKNOWN),
        lambda: store.requests.cancel(UNKNOWN, NOW),
        lambda: store.requests.retry(UNKNOWN, NOW),
    ):
        with pytest.raises(UnknownEvent):
            ask()


# retry


@pytest.mark.parametrize("make", [failed, cancelled])
def test_a_retry_grants_a_fresh_budget_and_keeps_the_history(
    store: JobStore, make: Callable[[JobStore], dict[str, Any]]
) -> None:
    before = make(store)
    document = store.requests.retry(before["_id"], ahead(5))
    assert document["status"] == "pending"
    assert document["max_attempts"] == before["max_attempts"] + 5
    assert document["attempts"] == before["attempts"]
    assert document["history"] == before["history"]
    assert document["next_attempt_at"] == ahead(5)
    assert (document["finished_at"], document["result"], document["error"]) == (None, None, None)


def test_every_retry_grants_the_original_budget(store: JobStore) -> None:
    job_id = accept(store, max_attempts=2)["_id"]
    for granted in (2, 4, 6):
        assert store.requests.get(job_id)["max_attempts"] == granted
        for _ in range(2):
            finish(store, claim(store, job_id), Outcome.ERROR)
        assert store.requests.get(job_id)["status"] == "failed"
        store.requests.retry(job_id, NOW)
    assert store.requests.get(job_id)["attempts"] == 6


def test_only_failed_and_cancelled_jobs_can_be_retried(store: JobStore) -> None:
    for job_id in (accept(store)["_id"], claimed(store).id, completed(store)["_id"]):
        with pytest.raises(NotAllowedNow):
            store.requests.retry(job_id, NOW)


def test_of_many_retries_at_once_one_counts(store: JobStore) -> None:
    job_id = failed(store)["_id"]

    def retry(_: int) -> bool:
        try:
            store.requests.retry(job_id, NOW)
        except NotAllowedNow:
            return False
        return True

    assert together(6, retry).count(True) == 1
    assert store.requests.get(job_id)["max_attempts"] == 10


def test_a_request_to_cancel_does_not_outlive_a_retry(store: JobStore) -> None:
    job = claimed(store)
    store.requests.cancel(job.id, NOW)
    finish(store, job, Outcome.CANCELLED)
    store.requests.retry(job.id, NOW)
    assert not claim(store, job.id).cancel_requested


# dead letters


def letters(store: JobStore, before: Any = NOW) -> list[str]:
    return [d["_id"] for d in store.dead_letters.undelivered(before, 100)]


def take(store: JobStore, *job_ids: str, at: datetime = NOW) -> list[str]:
    return [d["_id"] for d in store.dead_letters.take(job_ids, at)]


def test_a_failed_jobs_dead_letter_is_due_until_it_arrives_once(store: JobStore) -> None:
    job_id = failed(store)["_id"]
    assert letters(store) == [job_id]
    (taken,) = store.dead_letters.take([job_id], ahead(1))
    assert (taken["type"], taken["attempts"]) == ("email", 1)
    assert taken["error"]["reason"] == "rejected"
    assert store.requests.get(job_id)["dead_lettered_at"] == ahead(1)
    assert letters(store) == []
    assert take(store, job_id, at=ahead(2)) == []
    assert store.requests.get(job_id)["dead_lettered_at"] == ahead(1)


def test_dead_letters_are_taken_together_but_for_those_that_are_none(store: JobStore) -> None:
    many = [failed(store)["_id"] for _ in range(5)]
    known, retried, *due = many
    take(store, known)
    store.requests.retry(retried, NOW)
    others = [accept(store)["_id"], completed(store)["_id"], "unknown"]
    asked = [*others, *reversed(many), many[-1]]
    assert take(store, *asked, at=ahead(1)) == [*reversed(due)]
    assert [store.requests.get(i)["dead_lettered_at"] for i in due] == [ahead(1)] * 3
    assert store.requests.get(known)["dead_lettered_at"] == NOW
    assert store.requests.get(retried)["status"] == "pending"


def test_of_two_who_take_the_same_dead_letters_each_is_told_its_own(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is faster with some of them, at the same moment by the clock."""
    many = [failed(store)["_id"] for _ in range(4)]
    update = commands.update
    theirs: list[str] = []

    def overtaken(*args: Any) -> int:
        monkeypatch.setattr(commands, "update", update)
        theirs.extend(take(store, *many[1:3]))
        return update(*args)

    monkeypatch.setattr(commands, "update", overtaken)
    assert take(store, *many) == [many[0], many[3]]
    assert theirs == many[1:3]


def test_dead_letters_whose_taking_got_no_answer_are_told_all_the_same(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [failed(store)["_id"] for _ in range(3)]
    update = commands.update

    def unanswered(*args: Any) -> int:
        update(*args)
        monkeypatch.setattr(commands, "update", update)
        raise AutoReconnect("as asked")

    monkeypatch.setattr(commands, "update", unanswered)
    assert take(store, *many) == many
    assert take(store, *many) == []


def test_dead_letters_come_oldest_first_and_only_from_before(store: JobStore) -> None:
    late, early = (failed(store, at=ago(s))["_id"] for s in (1, 5))
    assert letters(store) == [early, late]
    assert letters(store, before=ago(3)) == [early]
    assert [d["_id"] for d in store.dead_letters.undelivered(NOW, 1)] == [early]


def test_a_job_that_was_retried_takes_no_dead_letter(store: JobStore) -> None:
    job_id = failed(store)["_id"]
    store.requests.retry(job_id, NOW)
    assert letters(store) == []
    assert take(store, job_id) == []


def test_a_second_failure_has_a_dead_letter_of_its_own(store: JobStore) -> None:
    job_id = failed(store)["_id"]
    take(store, job_id)
    store.requests.retry(job_id, NOW)
    finish(store, claim(store, job_id), Outcome.REJECTED)
    assert letters(store) == [job_id]


@pytest.mark.parametrize("make", [accept, completed, cancelled])
def test_only_failed_jobs_have_dead_letters(store: JobStore, make: Callable[..., Any]) -> None:
    document = make(store)
    assert letters(store, ahead(1)) == []
    assert take(store, document["_id"]) == []


# expiry


@pytest.mark.parametrize(
    ("make", "kept_seconds"), [(completed, 1_000), (failed, 2_000), (cancelled, 3_000)]
)
def test_a_final_job_expires_by_its_status(
    store: JobStore, make: Callable[[JobStore], dict[str, Any]], kept_seconds: int
) -> None:
    assert make(store)["expires_at"] == NOW + seconds(kept_seconds)


def test_an_open_job_never_expires(store: JobStore) -> None:
    job = claimed(store)
    assert "expires_at" not in store.requests.get(job.id)
    finish(store, job, Outcome.ERROR)
    assert "expires_at" not in store.requests.get(job.id)


def test_without_retention_jobs_are_kept_for_ever(database: Database[Any]) -> None:
    store = JobStore(database, retention=Retention())
    for make in (completed, failed, cancelled):
        assert "expires_at" not in make(store)


def test_retention_knows_every_final_status() -> None:
    for status in FINAL:
        assert RETENTION.expires_at(status, NOW) is not None


# reads


def test_finals_are_those_that_ended_or_are_gone(store: JobStore) -> None:
    ended = [completed(store)["_id"], failed(store)["_id"], cancelled(store)["_id"], UNKNOWN]
    still_open = [accept(store)["_id"], claimed(store).id]
    assert store.requests.finals([*ended, *still_open]) == ended


def test_progress_shows_while_the_job_runs(store: JobStore) -> None:
    job = claimed(store)
    store.held.progress(job, {"done": 5})
    assert store.requests.get(job.id)["progress"] == {"done": 5}


def test_progress_of_a_job_that_was_taken_away_is_dropped(store: JobStore) -> None:
    first, _ = zombie(store)
    store.held.progress(first, {"done": 5})
    assert "progress" not in store.requests.get(first.id)


def test_every_status_is_reached_and_read(store: JobStore) -> None:
    made = [accept(store), completed(store), failed(store), cancelled(store)]
    found = {store.requests.get(d["_id"])["status"] for d in made} | {
        store.requests.get(claimed(store).id)["status"]
    }
    assert found == set(JobStatus)
