"""Bugs to plant, so that the checker can be seen to catch them.

Loaded into web and worker processes through EVENT_TYPE_MODULES; the environment's PLANTED_BUG says
which. The product knows nothing of this: its functions are replaced from outside.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from service.job import JobStatus, Outcome, Transition
from service.queue.lanes import Lanes
from service.store import Counters, JobStore, WorkerStore, commands
from service.store.new_jobs import Accepted, NewJobs
from service.store.outcomes import Outcomes
from service.store.requests import Requests
from service.worker.claiming import pourer
from service.worker.finishing import committer
from service.worker.holding.turns import Turns
from service.worker.maintenance import dispatcher, sweep

BUGS: dict[str, Callable[[], None]] = {}


def bug(plant: Callable[[], None]) -> Callable[[], None]:
    BUGS[plant.__name__.replace("_", " ")] = plant
    return plant


def change_transitions(change: Callable[[Any, Transition], Transition]) -> None:
    """What the committer decides about a job goes through `change(job, transition)`."""
    transition_after = committer.transition_after
    committer.transition_after = lambda job, attempt_result, delay_ms: change(
        job, transition_after(job, attempt_result, delay_ms)
    )


@bug
def no_fence() -> None:
    """An outcome is written whoever has the job by now."""
    finishing = Outcomes._finishing

    def unfenced(self: Outcomes, group: Sequence[Any]) -> Any:
        statement = finishing(self, group)
        return statement | {"q": {"_id": statement["q"]["_id"]}}

    Outcomes._finishing = unfenced  # type: ignore[method-assign]


@bug
def no_sweep() -> None:
    """Nobody looks after the jobs of the dead, nor after lost messages."""
    sweep.rescue = lambda *_, **__: []  # type: ignore[assignment]
    no_dispatch()


def no_dispatch() -> None:
    dispatcher.dispatch = lambda *_, **__: 0  # type: ignore[attr-defined]


@bug
def hints_forgotten() -> None:
    """What is hinted at reaches no lane, and nobody looks for jobs without a hint."""
    Lanes.push = lambda _self, hints, **_: len(hints)  # type: ignore[method-assign]
    no_dispatch()


@bug
def never_poured() -> None:
    """What is beyond a lane's window stays in MongoDB."""
    init = Lanes.__init__

    def narrow(self: Lanes, client: Any, namespace: str, window: int) -> None:
        init(self, client, namespace, min(window, 5))

    Lanes.__init__ = narrow  # type: ignore[method-assign]
    pourer.pour = lambda *_: 0


@bug
def a_turn_skips_a_job() -> None:
    """A thread that takes one job after the other loses every other one on its way."""
    next_job = Turns.next

    def skipping(self: Turns) -> Any:
        return next_job(self) and next_job(self)

    Turns.next = skipping  # type: ignore[method-assign]


@bug
def ack_first() -> None:
    """An outcome counts as written, and is written a bit later; and nobody sweeps."""
    no_sweep()
    finish = Outcomes.finish

    def late(self: Outcomes, batch: Sequence[Any]) -> set[str]:
        threading.Timer(3.0, finish, (self, batch)).start()
        return set()

    Outcomes.finish = late  # type: ignore[method-assign]


@bug
def accepted_before_the_write() -> None:
    """202 first, MongoDB a bit later."""
    accept = NewJobs.accept

    def early(self: NewJobs, documents: Sequence[Any]) -> list[Any]:
        threading.Timer(1.0, accept, (self, documents)).start()
        return [Accepted(document) for document in documents]

    NewJobs.accept = early  # type: ignore[method-assign]


@bug
def terminal_overwrite() -> None:
    """Cancelling doesn't look at the status."""

    def cancel(self: Requests, job_id: str, now: Any) -> Any:
        fields = {"status": "cancelled", "finished_at": now, "updated_at": now, "result": None}
        self._jobs.update_one({"_id": job_id}, {"$set": fields})
        return self.get(job_id), True

    Requests.cancel = cancel  # type: ignore[method-assign]


@bug
def claim_without_guard() -> None:
    """Whoever has a message gets its job."""

    one, many = commands.find_and_modify, commands.update

    def unguarded(query: Any) -> Any:
        return {"_id": query["_id"]} if "company" in query else query

    def claim_one(database: Any, name: str, query: Any, change: Any, fields: Any) -> Any:
        return one(database, name, unguarded(query), change, fields)

    def claim_many(database: Any, name: str, updates: Any) -> int:
        return many(database, name, [u | {"q": unguarded(u["q"])} for u in updates])

    commands.find_and_modify = claim_one
    commands.update = claim_many


@bug
def retry_without_budget() -> None:
    """Failures are retried for ever."""
    transition_after = committer.transition_after

    def generous(job: Any, attempt_result: Any, delay_ms: int) -> Transition:
        return transition_after(
            dataclasses.replace(job, max_attempts=1_000), attempt_result, delay_ms
        )

    committer.transition_after = generous


@bug
def failed_at_the_first_error() -> None:
    """The budget is not used."""

    def change(_job: Any, transition: Transition) -> Transition:
        if transition.outcome is not Outcome.ERROR:
            return transition
        return dataclasses.replace(transition, status=JobStatus.FAILED, next_attempt_at=None)

    change_transitions(change)


@bug
def keys_ignored() -> None:
    """Idempotency keys are not kept."""
    accept = NewJobs.accept

    def forgetful(self: NewJobs, documents: Sequence[Any]) -> list[Any]:
        for document in documents:
            document.pop("idempotency_key", None)
        return accept(self, documents)

    NewJobs.accept = forgetful  # type: ignore[method-assign]


@bug
def giving_back_charges() -> None:
    """A job that is given back pays for it."""
    change_transitions(lambda _job, transition: dataclasses.replace(transition, charged=True))


@bug
def giving_back_loses() -> None:
    """A job that is given back is never due again."""

    def change(_job: Any, transition: Transition) -> Transition:
        if transition.outcome not in (Outcome.RELEASED, Outcome.UNSTARTED):
            return transition
        return dataclasses.replace(transition, next_attempt_at=None)

    change_transitions(change)


@bug
def rescue_of_the_living() -> None:
    """Every worker is taken for dead."""
    WorkerStore.dead_among = lambda _self, ids, *_: set(ids)  # type: ignore[method-assign]


@bug
def result_written_twice() -> None:
    """A completed job's result is written once more, from memory that says something else."""
    finish = Outcomes.finish

    def again(self: Outcomes, batch: Sequence[Any]) -> set[str]:
        fenced = finish(self, batch)
        ids = [job.id for job, transition in batch if transition.status is JobStatus.COMPLETED]
        query, other = {"_id": {"$in": ids}}, {"$set": {"result": {"token": "other"}}}
        threading.Timer(0.7, self._jobs.update_many, (query, other)).start()
        return fenced

    Outcomes.finish = again  # type: ignore[method-assign]


@bug
def counted_twice() -> None:
    """Totals are added twice."""
    add = Counters.add

    def twice(self: Counters, deltas: Any) -> None:
        add(self, deltas)
        add(self, deltas)

    Counters.add = twice  # type: ignore[method-assign]


@bug
def not_counted() -> None:
    """Totals are not added."""
    Counters.add = lambda _self, _deltas: None  # type: ignore[method-assign]


@bug
def stale_reads() -> None:
    """Every other GET is answered from a copy that is never renewed."""
    get_many, copies, turns = Requests.get_many, {}, iter(range(1 << 62))

    def stale(self: Requests, job_ids: Sequence[str]) -> list[Any]:
        found = get_many(self, job_ids)
        for job_id, document in zip(job_ids, found, strict=True):
            copies.setdefault(job_id, document)
        return [copies[i] for i in job_ids] if next(turns) % 2 else found

    Requests.get_many = stale  # type: ignore[method-assign]


@bug
def history_forgotten() -> None:
    """Only the last attempt is kept."""
    init = JobStore.__init__

    def short(self: JobStore, *args: Any, **options: Any) -> None:
        init(self, *args, **(options | {"history_limit": 1}))

    JobStore.__init__ = short  # type: ignore[method-assign]


if name := os.environ.get("PLANTED_BUG"):
    BUGS[name]()
