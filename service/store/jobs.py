"""Jobs: accept, claim, finish, and what a client may ask of one."""

from __future__ import annotations

import itertools
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect, BulkWriteError
from pymongo.read_concern import ReadConcern

from service.clock import from_ms
from service.errors import KeyReused, NotAllowedNow, StoreUnavailable, UnknownEvent
from service.ids import new_id
from service.job import (
    DOCUMENT_VERSION,
    FINAL,
    Hint,
    Job,
    JobStatus,
    NewEvent,
    Outcome,
    Priority,
    Stranded,
    Verdict,
)
from service.store import commands
from service.store.batches import fitting
from service.store.guard import mongo_errors
from service.store.mongo import Document
from service.store.payloads import OneByOne
from service.store.rescues import Rescues

_DUPLICATE_KEY = 11000
_CLAIM_SLACK = timedelta(milliseconds=100)
"""Two processes' readings of the server's clock may differ by some milliseconds; a claim that came
a moment early by that must not be refused, because its message would be gone."""

_TRIES_AFTER_EXPIRY = 3
"""How often a key is taken again whose first event expires in just that moment."""

_MOST_TEXT_BYTES = 1_500_000
"""Of results (as JSON) and messages of errors in one command, before the last: as BSON they take up
to seven times as many bytes, and the driver refuses a command of more than 16 MiB."""

_STATEMENT_BYTES = 150
"""What else a statement has, by the same measure."""

_LONGEST_ALIKE_BYTES = 1_000
"""Results longer than that are not compared: to put them side by side takes time and memory."""

_NOT_IN_A_REPLAY = dict.fromkeys(("payload", "result", "error", "history", "progress"), 0)
"""What no answer to a known key shows; a thousand of them at once may be large."""

_HISTORY_LOOK = 5
"""How many entries may have been added between a write whose reply was lost and the next try."""

_CLAIMED_FIELDS = dict.fromkeys(
    (
        "type",
        "queue",
        "priority",
        "payload",
        "attempts",
        "max_attempts",
        "claims",
        "claim",
        "time_limit_ms",
        "created_at",
        "next_attempt_at",
        "started_at",
        "worker",
        "company",
        "deaths",
        "cancel_requested",
        "request_id",
        "traceparent",
    ),
    1,
)

_WITHOUT_PAYLOAD = {name: 1 for name in _CLAIMED_FIELDS if name != "payload"}

_STRANDED_FIELDS: Document = _WITHOUT_PAYLOAD | {
    # Crashes since the budget was last granted: a history may be long, and full of long texts.
    "crashes": {
        "$size": {
            "$filter": {
                "input": "$history",
                "cond": {
                    "$and": [
                        {"$eq": ["$$this.outcome", Outcome.CRASH.value]},
                        {"$gt": ["$$this.attempt", {"$ifNull": ["$retried_from", 0]}]},
                    ]
                },
            }
        }
    }
}

_Alike = list[tuple[Job, Verdict]]
"""Jobs that end alike."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long final jobs are kept, in seconds by status; None: for ever."""

    completed_seconds: int | None = None
    failed_seconds: int | None = None
    cancelled_seconds: int | None = None

    def expires_at(self, status: JobStatus, at: datetime) -> datetime | None:
        seconds: int | None = getattr(self, f"{status}_seconds")
        return None if seconds is None else at + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the store has for a posted event: its document, new or (a known key) the first one's,
    without what may be large."""

    document: Document
    replayed: bool = False

    @property
    def hint(self) -> Hint:
        return hint_of(self.document)


@dataclass(frozen=True, slots=True)
class Due:
    """Jobs that wait, oldest first, and since when the first of them has been due."""

    hints: list[Hint]
    oldest: datetime | None


class JobStore:
    """The collection `jobs`. Where MongoDB gives no answer, a method raises `StoreUnavailable`."""

    def __init__(
        self,
        database: Database[Document],
        *,
        retention: Retention | None = None,
        history_limit: int = 100,
    ) -> None:
        self._database = database
        self._jobs: Collection[Document] = database["jobs"]
        # What clients see is what a majority has: a primary that dies takes back the rest.
        self._lasting = self._jobs.with_options(read_concern=ReadConcern("majority"))
        self.rescues = Rescues(database)
        self._one_by_one = OneByOne(self._lasting)
        self._retention = retention or Retention()
        self._history_limit = history_limit
        self._claim_number = itertools.count()
        self._claim_prefix = os.urandom(6).hex()

    # accept

    def accept(self, documents: Sequence[Document]) -> list[Accepted | Exception]:
        """Inserts new jobs by majority and journal, all that are new whatever becomes of the rest.

        One answer a document, in order: accepted, replayed (known key, same fingerprint), or
        `KeyReused`, or `StoreUnavailable` where nothing can be said of this one. After a lost reply
        the same documents are sent once more: an `_id` that is there already was written by the
        first try.
        """
        with mongo_errors():
            try:
                taken = self._insert(documents)
            except AutoReconnect as error:
                if error.timeout:
                    raise
                taken = self._insert(documents)
            if not taken:
                return [Accepted(document) for document in documents]
            return self._with_replays(documents, taken)

    def _insert(self, documents: Sequence[Document]) -> set[int]:
        """Positions of the documents whose idempotency key is taken."""
        failures = commands.insert(self._database, "jobs", documents)
        if any(f["code"] != _DUPLICATE_KEY for f in failures):
            raise BulkWriteError({"writeErrors": failures})
        return {f["index"] for f in failures if "idempotency_key" in f["keyPattern"]}

    def _with_replays(
        self, documents: Sequence[Document], taken: set[int], tries: int = _TRIES_AFTER_EXPIRY
    ) -> list[Accepted | Exception]:
        keys = [documents[i]["idempotency_key"] for i in taken]
        found = self._jobs.find({"idempotency_key": {"$in": keys}}, _NOT_IN_A_REPLAY)
        known = {d["idempotency_key"]: d for d in found}
        expired = [i for i in taken if documents[i]["idempotency_key"] not in known]
        again = dict(
            zip(expired, self._once_more([documents[i] for i in expired], tries), strict=True)
        )
        answers: list[Accepted | Exception] = []
        for position, document in enumerate(documents):
            first = known.get(document["idempotency_key"]) if position in taken else None
            if position not in taken or (first is not None and first["_id"] == document["_id"]):
                answers.append(Accepted(document))
            elif first is None:
                answers.append(again[position])
            elif first["fingerprint"] != document["fingerprint"]:
                answers.append(KeyReused("this idempotency key was used for another body"))
            else:
                answers.append(Accepted(first, replayed=True))
        return answers

    def _once_more(self, documents: Sequence[Document], tries: int) -> list[Accepted | Exception]:
        """Those whose key was taken by an event that has expired since: the key is free again."""
        if not documents:
            return []
        if not tries:
            return [StoreUnavailable("the key's first event expired meanwhile") for _ in documents]
        return self._with_replays(documents, self._insert(documents), tries - 1)

    # claim

    def claim(
        self,
        job_ids: Sequence[str],
        worker: str,
        now: datetime,
        types: Sequence[str] | None = None,
        *,
        most_bytes: float = math.inf,
    ) -> list[Job]:
        """Takes those of the jobs (of these types) that are pending, due and no suspects, for
        `worker`.

        Who else asks for the same jobs gets none of them. Each claim has a fencing token of its
        own, and raises `attempts` and `claims`. Jobs beyond `most_bytes` of memory (one job in any
        case) come without their payload, `size` None: they are claimed, and the caller has to give
        them back.
        """
        guard: Document = {"company": None}
        if types is not None:
            guard["type"] = {"$in": list(types)}
        return self._claim(job_ids, worker, now, guard, most_bytes)

    def claim_suspects(
        self,
        job_ids: Sequence[str],
        worker: str,
        now: datetime,
        *,
        most_bytes: float = math.inf,
    ) -> list[Job]:
        """Like `claim`, for jobs that were held by a process that died."""
        return self._claim(job_ids, worker, now, {"company": {"$exists": True}}, most_bytes)

    def _claim(
        self,
        job_ids: Sequence[str],
        worker: str,
        now: datetime,
        guard: Document,
        most_bytes: float,
    ) -> list[Job]:
        token = f"{self._claim_prefix}-{next(self._claim_number)}"
        free = {"status": "pending", "next_attempt_at": {"$lte": now + _CLAIM_SLACK}, **guard}
        update = {
            "$set": {
                "status": "processing",
                "worker": worker,
                "claim": token,
                "started_at": now,
                "updated_at": now,
            },
            "$inc": {"attempts": 1, "claims": 1},
        }
        with mongo_errors():
            if len(job_ids) == 1:
                raw = commands.find_and_modify(
                    self._database, "jobs", {"_id": job_ids[0], **free}, update, _CLAIMED_FIELDS
                )
                return [] if raw is None else self._fitting([raw], math.inf)
            ids = {"$in": list(job_ids)}
            statement = {"q": {"_id": ids, **free}, "u": update, "multi": True}
            count = commands.update(self._database, "jobs", [statement])
            return self._claimed(count, job_ids, token, most_bytes) if count else []

    def _claimed(
        self, count: int, job_ids: Sequence[str], token: str, most_bytes: float
    ) -> list[Job]:
        """The jobs that a claim took, so many; those beyond `most_bytes` without their payload.

        A reply has 16 MiB of documents at most, and the next is asked for only where that one fits.
        """
        mine: Document = {"_id": {"$in": list(job_ids)}, "claim": token}
        found: Any = self._jobs.find_raw_batches(mine, _CLAIMED_FIELDS, batch_size=len(job_ids))
        with found as batches:
            jobs = self._fitting(batches, most_bytes)
        if len(jobs) < count:
            read = {job.id for job in jobs}
            rest = {"$in": [job_id for job_id in job_ids if job_id not in read]}
            jobs += map(_job, self._jobs.find({**mine, "_id": rest}, _WITHOUT_PAYLOAD))
        return jobs

    def _fitting(self, batches: Iterable[bytes], most_bytes: float) -> list[Job]:
        options = self._jobs.codec_options
        return [_job(d, size) for d, size in fitting(batches, most_bytes, options)]

    # what waits

    def due(
        self,
        queue: str,
        priority: str,
        now: datetime,
        *,
        limit: int,
        skip: int = 0,
        types: Sequence[str],
        since: datetime | None = None,
    ) -> Due:
        """The oldest jobs of these types that are pending and due, suspects included: a claim
        tells.

        `since` leaves out what was due before: the keys of jobs that were just claimed are still
        in the index for a while, and passing over thousands of them costs more than the rest.
        """
        query: Document = {
            "status": "pending",
            "queue": queue,
            "priority": priority,
            "next_attempt_at": {"$lte": now} | ({"$gte": since} if since else {}),
            "type": {"$in": list(types)},
        }
        with mongo_errors():
            found = self._jobs.find(
                query,
                {"type": 1, "next_attempt_at": 1},
                sort=[("next_attempt_at", 1), ("_id", 1)],
                limit=limit,
                batch_size=limit,
                skip=skip,
                hint="waiting",
            )
            documents = list(found)
        hints = [Hint(d["_id"], d["type"], queue, priority) for d in documents]
        return Due(hints, documents[0]["next_attempt_at"] if documents else None)

    def any_due(self, queues: Sequence[str], now: datetime, since: datetime | None = None) -> bool:
        """Whether any job of these queues is pending and due (since then); much cheaper than
        `due`."""
        query = {
            "status": "pending",
            "queue": {"$in": list(queues)},
            "priority": {"$in": [p.value for p in Priority]},
            "next_attempt_at": {"$lte": now} | ({"$gte": since} if since else {}),
        }
        with mongo_errors():
            return self._jobs.find_one(query, {"_id": 1}, hint="waiting") is not None

    def suspects(
        self, queues: Iterable[str], types: Iterable[str], now: datetime, limit: int
    ) -> list[tuple[str, int]]:
        """Due jobs of these types that were held by a process that died: id and the company they
        may have."""
        query = {
            "status": "pending",
            "company": {"$exists": True},
            "queue": {"$in": list(queues)},
            "type": {"$in": list(types)},
            "next_attempt_at": {"$lte": now},
        }
        with mongo_errors():
            found = self._jobs.find(
                query, {"company": 1}, sort=[("company", -1)], limit=limit, hint="suspects"
            )
            return [(d["_id"], d["company"]) for d in found]

    # finish

    def finish(self, batch: Sequence[tuple[Job, Verdict]]) -> set[str]:
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

    def _finishing(self, group: Sequence[tuple[Job, Verdict]]) -> Document:
        """One statement for jobs that end alike: it costs MongoDB half of what one each would."""
        job, verdict = group[0]
        fields: Document = {
            "status": verdict.status.value,
            "updated_at": verdict.at,
            "next_attempt_at": verdict.next_attempt_at,
        }
        update: Document = {"$set": fields, "$unset": {"claim": ""}}
        if verdict.status in FINAL:
            self._finalize(fields, verdict)
        if verdict.error is not None and verdict.in_history:
            fields["error"] = verdict.error
        if verdict.company is not None:
            fields["company"] = verdict.company
        steps = {"attempts": 0 if verdict.charged else -1, "deaths": int(verdict.died)}
        if any(steps.values()):
            update["$inc"] = {name: step for name, step in steps.items() if step}
        if verdict.in_history:
            entry = [_history_entry(job, verdict)]
            update["$push"] = {"history": {"$each": entry, "$slice": -self._history_limit}}
        guard = {"status": "processing", "claim": job.claim}
        if len(group) == 1:
            return {"q": {"_id": job.id, **guard}, "u": update}
        ids = {"$in": [job.id for job, _ in group]}
        return {"q": {"_id": ids, **guard}, "u": update, "multi": True}

    def _finalize(self, fields: Document, verdict: Verdict) -> None:
        fields["finished_at"] = verdict.at
        fields["result"] = verdict.result
        fields["error"] = verdict.error
        if (expires_at := self._retention.expires_at(verdict.status, verdict.at)) is not None:
            fields["expires_at"] = expires_at
        if verdict.status is JobStatus.FAILED:
            fields["dead_letter_due"] = verdict.at

    def _fenced(self, batch: Sequence[tuple[Job, Verdict]]) -> set[str]:
        ids = [job.id for job, _ in batch]
        fields = {"history": {"$slice": -_HISTORY_LOOK}, "status": 1, "claims": 1, "worker": 1}
        now_there = {d["_id"]: d for d in self._jobs.find({"_id": {"$in": ids}}, fields)}
        return {
            job.id
            for job, verdict in batch
            if not _is_applied(job, verdict, now_there.get(job.id, {}))
        }

    # rescue

    def stranded(self, worker: str, *, after: str = "", most: int = 500) -> list[Stranded]:
        """What is still `processing` under a worker that is dead, without payloads: the first ones
        in the order of their ids, of those beyond `after`."""
        query = {"status": "processing", "worker": worker, "_id": {"$gt": after}}
        with mongo_errors():
            found = list(
                self._jobs.find(
                    query, _STRANDED_FIELDS, sort=[("_id", 1)], limit=most, hint="by_status"
                )
            )
        held = self.rescues.held(worker) if found else 0
        return [Stranded(_job(d), d["crashes"], held) for d in found]

    def claims_of(self, worker: str) -> dict[str, str]:
        """The fencing token of every job that is `processing` under this worker."""
        query = {"status": "processing", "worker": worker}
        with mongo_errors():
            return {d["_id"]: d["claim"] for d in self._jobs.find(query, {"claim": 1})}

    def held_by(self, worker: str, job_ids: Sequence[str]) -> list[Job]:
        """Those of the jobs that are `processing` under this worker, without their payloads."""
        if not job_ids:
            return []
        query = {"_id": {"$in": list(job_ids)}, "status": "processing", "worker": worker}
        with mongo_errors():
            return [_job(d) for d in self._jobs.find(query, _WITHOUT_PAYLOAD)]

    def holders(self) -> set[str]:
        """The workers that hold jobs, dead ones included."""
        pipeline = [{"$match": {"status": "processing"}}, {"$group": {"_id": "$worker"}}]
        with mongo_errors():
            return {d["_id"] for d in self._jobs.aggregate(pipeline)}

    def cancel_requests(self, worker: str, job_ids: Sequence[str]) -> list[str]:
        """Those of the jobs that are under this worker and that a client wants cancelled."""
        query = {
            "_id": {"$in": list(job_ids)},
            "status": "processing",
            "worker": worker,
            "cancel_requested": True,
        }
        with mongo_errors():
            return [d["_id"] for d in self._jobs.find(query, {"_id": 1}, hint="_id_")]

    def progress(self, job: Job, value: Any) -> None:
        """Sets the job's `progress`, while it is run under this claim."""
        guard = {"_id": job.id, "status": "processing", "claim": job.claim}
        with mongo_errors():
            self._jobs.update_one(guard, {"$set": {"progress": value}})

    # dead letters

    def undelivered_dead_letters(self, before: datetime, limit: int) -> list[Document]:
        """Failed jobs since before then whose dead letter hasn't arrived, oldest first."""
        with mongo_errors():
            return list(
                self._jobs.find(
                    {"dead_letter_due": {"$lte": before}},
                    {"type": 1, "queue": 1, "attempts": 1, "max_attempts": 1},
                    sort=[("dead_letter_due", 1)],
                    limit=limit,
                )
            )

    def take_dead_letter(self, job_id: str, now: datetime) -> Document | None:
        """Notes that the dead letter has arrived; the job, or None where that was known or it
        isn't failed (any more)."""
        with mongo_errors():
            return self._jobs.find_one_and_update(
                {"_id": job_id, "status": "failed", "dead_letter_due": {"$exists": True}},
                {"$set": {"dead_lettered_at": now}, "$unset": {"dead_letter_due": ""}},
                return_document=ReturnDocument.AFTER,
            )

    # a client's requests

    def get(self, job_id: str) -> Document:
        """Raises `UnknownEvent`."""
        with mongo_errors():
            document = self._lasting.find_one({"_id": job_id})
        if document is None:
            raise UnknownEvent(f"no event has the id {job_id}")
        return document

    def get_many(self, job_ids: Sequence[str]) -> list[Document | UnknownEvent]:
        """Each job's document, in order, or that there is none."""
        with mongo_errors():
            query = {"_id": {"$in": list(set(job_ids))}}
            found = {d["_id"]: d for d, _ in self._one_by_one.find(query)}
        return [
            found.get(job_id) or UnknownEvent(f"no event has the id {job_id}") for job_id in job_ids
        ]

    def finals(self, job_ids: Sequence[str]) -> list[str]:
        """Those of the jobs that have a final status, or are gone."""
        query = {"_id": {"$in": list(job_ids)}, "status": {"$in": ["pending", "processing"]}}
        with mongo_errors():
            still_open = {d["_id"] for d in self._lasting.find(query, {"_id": 1})}
        return [job_id for job_id in job_ids if job_id not in still_open]

    def cancel(self, job_id: str, now: datetime) -> tuple[Document, bool]:
        """Cancels a pending job, or asks a processing one to stop; the job, and whether this call
        made it `cancelled`. Raises `UnknownEvent`, `NotAllowedNow`."""
        cancelled: Document = {
            "status": "cancelled",
            "finished_at": now,
            "updated_at": now,
            "next_attempt_at": None,
        }
        if (expires_at := self._retention.expires_at(JobStatus.CANCELLED, now)) is not None:
            cancelled["expires_at"] = expires_at
        asked = {"cancel_requested": True, "updated_at": now}
        with mongo_errors():
            for status, fields in (("pending", cancelled), ("processing", asked)) * 2:
                document = self._jobs.find_one_and_update(
                    {"_id": job_id, "status": status},
                    {"$set": fields},
                    return_document=ReturnDocument.AFTER,
                )
                if document is not None:
                    return document, status == "pending"
        document = self.get(job_id)
        if document["status"] == "cancelled":
            return document, False
        raise NotAllowedNow(f"an event that is {document['status']} can't be cancelled")

    def retry(self, job_id: str, now: datetime) -> Document:
        """Makes a failed or cancelled job pending again, with a fresh budget.

        Raises `UnknownEvent`, `NotAllowedNow`.
        """
        with mongo_errors():
            document = self._jobs.find_one_and_update(
                {"_id": job_id, "status": {"$in": ["failed", "cancelled"]}},
                retrying(now),
                return_document=ReturnDocument.AFTER,
            )
        if document is not None:
            return document
        status = self.get(job_id)["status"]
        raise NotAllowedNow(f"an event that is {status} can't be retried")


def _alike(batch: Sequence[tuple[Job, Verdict]]) -> Iterable[_Alike]:
    """The batch in groups that the same update serves: claimed together, each in the same attempt,
    completed at the same time with the same result."""
    groups: dict[object, list[tuple[Job, Verdict]]] = defaultdict(list)
    for job, verdict in batch:
        key: object = job.id
        if verdict.status is JobStatus.COMPLETED and verdict.result_bytes <= _LONGEST_ALIKE_BYTES:
            result = repr(verdict.result)
            times = (verdict.started_at or job.started_at, verdict.at)
            key = (job.claim, job.attempts, times, result)
        groups[key].append((job, verdict))
    return groups.values()


def _in_messages(groups: Iterable[_Alike]) -> Iterator[list[_Alike]]:
    """As many groups at once as fit into one command, whatever their results."""
    chosen: list[_Alike] = []
    size = 0
    for group in groups:
        verdict = group[0][1]
        size += _STATEMENT_BYTES + (verdict.result_bytes or len(repr(verdict.result)))
        size += 0 if verdict.error is None else len(verdict.error["message"])
        chosen.append(group)
        if size >= _MOST_TEXT_BYTES:
            yield chosen
            chosen, size = [], 0
    if chosen:
        yield chosen


def retrying(now: datetime) -> list[Document]:
    """The update that gives a final job a fresh budget. It holds no text of a client's."""
    return [
        {
            "$set": {
                "status": "pending",
                "max_attempts": {"$add": ["$max_attempts", "$budget"]},
                "retried_from": "$attempts",
                "next_attempt_at": now,
                "updated_at": now,
                "finished_at": None,
                "result": None,
                "error": None,
            }
        },
        {
            "$unset": [
                "expires_at",
                "dead_letter_due",
                "dead_lettered_at",
                "cancel_requested",
                "company",
                "deaths",
                "progress",
            ]
        },
    ]


def new_document(event: NewEvent, now_ms: int) -> Document:
    """The document of a new job, its `_id` made for this moment (milliseconds since 1970)."""
    now = from_ms(now_ms)
    run_at = event.run_at
    if event.delay_ms:
        run_at = now + timedelta(milliseconds=event.delay_ms)
    document: Document = {
        "_id": new_id(now_ms),
        "v": DOCUMENT_VERSION,
        "type": event.type,
        "payload": event.payload,
        "status": "pending",
        "priority": event.priority,
        "queue": event.queue,
        "attempts": 0,
        "max_attempts": event.max_attempts,
        "budget": event.max_attempts,
        "claims": 0,
        "time_limit_ms": event.time_limit_ms,
        "created_at": now,
        "updated_at": now,
        "run_at": run_at,
        "next_attempt_at": now if run_at is None or run_at < now else run_at,
        "started_at": None,
        "finished_at": None,
        "result": None,
        "error": None,
        "history": [],
    }
    if event.request_id is not None:
        document["request_id"] = event.request_id
    if event.traceparent is not None:
        document["traceparent"] = event.traceparent
    if event.idempotency_key is not None:
        document["idempotency_key"] = event.idempotency_key
        document["fingerprint"] = event.fingerprint
    return document


def hint_of(document: Document) -> Hint:
    return Hint(document["_id"], document["type"], document["queue"], document["priority"])


def _job(document: Document, size: int | None = None) -> Job:
    """`size`: bytes of memory, about; None: read without its payload."""
    return Job(
        id=document["_id"],
        type=document["type"],
        queue=document["queue"],
        priority=document["priority"],
        payload=document.get("payload", {}),
        attempts=document["attempts"],
        max_attempts=document["max_attempts"],
        claims=document["claims"],
        claim=document["claim"],
        time_limit_ms=document["time_limit_ms"],
        created_at=document["created_at"],
        next_attempt_at=document["next_attempt_at"],
        started_at=document["started_at"],
        worker=document["worker"],
        company=document.get("company"),
        deaths=document.get("deaths", 0),
        cancel_requested=document.get("cancel_requested", False),
        request_id=document.get("request_id"),
        traceparent=document.get("traceparent"),
        size=size,
    )


def _history_entry(job: Job, verdict: Verdict) -> Document:
    return {
        "attempt": job.attempts,
        "worker": job.worker,
        "started_at": verdict.started_at or job.started_at,
        "finished_at": verdict.at,
        "outcome": verdict.outcome.value,
        "error": verdict.error,
    }


def _is_applied(job: Job, verdict: Verdict, document: Document) -> bool:
    """Whether the verdict stands in the document, be it that others followed. A job given back
    unstarted leaves no entry: what it says is its status, until somebody claims it again.
    """
    if not verdict.in_history:
        found = (document.get("claims"), document.get("worker"))
        is_claimed_since = found != (job.claims, job.worker)
        if is_claimed_since and verdict.status not in FINAL:
            return True
        return not is_claimed_since and document.get("status") == verdict.status
    return any(
        entry["attempt"] == job.attempts
        and entry["worker"] == job.worker
        and entry["outcome"] == verdict.outcome
        and entry["finished_at"] == verdict.at
        for entry in document.get("history", [])
    )
