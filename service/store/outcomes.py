"""Outcomes: what became of claimed jobs, written together, each guarded by its claim."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from pymongo.collection import Collection
from pymongo.database import Database

from service.job import FINAL, Job, JobStatus, Transition
from service.store import commands
from service.store.documents import Retention, history_entry
from service.store.guard import mongo_errors
from service.store.mongo import Document

_MOST_TEXT_BYTES = 1_500_000
"""Of results (as JSON) and messages of errors in one command, before the last: as BSON they take up
to seven times as many bytes, and the driver refuses a command of more than 16 MiB."""

_STATEMENT_BYTES = 150
"""What else a statement has, by the same measure."""

_LONGEST_ALIKE_BYTES = 1_000
"""Results longer than that are not compared: to put them side by side takes time and memory."""

_HISTORY_LOOK = 5
"""How many entries may have been added between a write whose reply was lost and the next try."""

_Alike = list[tuple[Job, Transition]]
"""Jobs that end alike."""


class Outcomes:
    """Every method raises `StoreUnavailable`."""

    def __init__(
        self, database: Database[Document], retention: Retention, history_limit: int
    ) -> None:
        self._database = database
        self._jobs: Collection[Document] = database["jobs"]
        self._retention = retention
        self._history_limit = history_limit

    def finish(self, batch: Sequence[tuple[Job, Transition]]) -> set[str]:
        """Writes what became of claimed jobs; the ids of those that were taken away meanwhile.

        Each update is guarded by the claim that the job was run under. Sending a batch again after
        a lost reply is harmless: what was applied is recognised by its entry in the history. Of one
        job a batch has one claim, as the answer names jobs.
        """
        matched = 0
        with mongo_errors():
            for groups in _in_messages(_alike(batch)):
                updates = [self._finishing(group) for group in groups]
                matched += commands.update(self._database, "jobs", updates)
            return set() if matched == len(batch) else self._fenced(batch)

    def _finishing(self, group: Sequence[tuple[Job, Transition]]) -> Document:
        """One statement for jobs that end alike: it costs MongoDB half of what one each would."""
        job, transition = group[0]
        fields: Document = {
            "status": transition.status.value,
            "updated_at": transition.at,
            "next_attempt_at": transition.next_attempt_at,
        }
        update: Document = {"$set": fields, "$unset": {"claim": ""}}
        if transition.status in FINAL:
            self._finalize(fields, transition)
        if transition.error is not None and transition.in_history:
            fields["error"] = transition.error
        if transition.company is not None:
            fields["company"] = transition.company
        steps = {"attempts": 0 if transition.charged else -1, "deaths": int(transition.died)}
        if any(steps.values()):
            update["$inc"] = {name: step for name, step in steps.items() if step}
        if transition.in_history:
            entry = [history_entry(job, transition)]
            update["$push"] = {"history": {"$each": entry, "$slice": -self._history_limit}}
        guard = {"status": "processing", "claim": job.claim}
        if len(group) == 1:
            return {"q": {"_id": job.id, **guard}, "u": update}
        ids = {"$in": [job.id for job, _ in group]}
        return {"q": {"_id": ids, **guard}, "u": update, "multi": True}

    def _finalize(self, fields: Document, transition: Transition) -> None:
        fields["finished_at"] = transition.at
        fields["result"] = transition.result
        fields["error"] = transition.error
        if (expires_at := self._retention.expires_at(transition.status, transition.at)) is not None:
            fields["expires_at"] = expires_at
        if transition.status is JobStatus.FAILED:
            fields["dead_letter_due"] = transition.at

    def _fenced(self, batch: Sequence[tuple[Job, Transition]]) -> set[str]:
        ids = [job.id for job, _ in batch]
        fields = {"history": {"$slice": -_HISTORY_LOOK}, "status": 1, "claims": 1, "worker": 1}
        now_there = {d["_id"]: d for d in self._jobs.find({"_id": {"$in": ids}}, fields)}
        return {
            job.id
            for job, transition in batch
            if not _is_applied(job, transition, now_there.get(job.id, {}))
        }


def _alike(batch: Sequence[tuple[Job, Transition]]) -> Iterable[_Alike]:
    """The batch in groups that the same update serves: claimed together, each in the same attempt,
    ended at the same time in the same way."""
    groups: dict[object, list[tuple[Job, Transition]]] = defaultdict(list)
    for job, transition in batch:
        key: object = job.id
        if transition.result_bytes <= _LONGEST_ALIKE_BYTES:
            key = (
                job.claim,
                job.attempts,
                transition.started_at or job.started_at,
                *_written(transition),
            )
        groups[key].append((job, transition))
    return groups.values()


def _written(transition: Transition) -> tuple[object, ...]:
    """All of it that is written, as something that can be compared."""
    return (
        transition.status,
        transition.outcome,
        transition.at,
        transition.next_attempt_at,
        transition.charged,
        transition.company,
        transition.died,
        repr(transition.result) if transition.error is None else repr(transition.error),
    )


def _in_messages(groups: Iterable[_Alike]) -> Iterator[list[_Alike]]:
    """As many groups at once as fit into one command, whatever their results."""
    chosen: list[_Alike] = []
    size = 0
    for group in groups:
        transition = group[0][1]
        size += _STATEMENT_BYTES + (transition.result_bytes or len(repr(transition.result)))
        size += 0 if transition.error is None else len(transition.error["message"])
        chosen.append(group)
        if size >= _MOST_TEXT_BYTES:
            yield chosen
            chosen, size = [], 0
    if chosen:
        yield chosen


def _is_applied(job: Job, transition: Transition, document: Document) -> bool:
    """Whether the transition stands in the document, be it that others followed. A job given back
    unstarted leaves no entry: what it says is its status, until somebody claims it again.
    """
    if not transition.in_history:
        found = (document.get("claims"), document.get("worker"))
        is_claimed_since = found != (job.claims, job.worker)
        if is_claimed_since and transition.status not in FINAL:
            return True
        return not is_claimed_since and document.get("status") == transition.status
    return any(
        entry["attempt"] == job.attempts
        and entry["worker"] == job.worker
        and entry["outcome"] == transition.outcome
        and entry["finished_at"] == transition.at
        for entry in document.get("history", [])
    )
