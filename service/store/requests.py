"""What clients ask of a job that they have posted: look, cancel, retry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from service.errors import NotAllowedNow, UnknownEvent
from service.job import JobStatus
from service.store.documents import Retention
from service.store.guard import mongo_errors
from service.store.mongo import Document
from service.store.payloads import OneByOne

ASKED: Document = {"cancel_requested": True}
"""What is set in a job that is processed, and should stop."""


class Requests:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document], retention: Retention) -> None:
        self._jobs: Collection[Document] = database["jobs"]
        # What clients see is what a majority has: a primary that dies takes back the rest.
        self._lasting = self._jobs.with_options(read_concern=ReadConcern("majority"))
        self._one_by_one = OneByOne(self._lasting)
        self._retention = retention

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
        cancelled = cancelling(now, self._retention)
        asked = {**ASKED, "updated_at": now}
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


def cancelling(now: datetime, retention: Retention) -> Document:
    """What is set in a pending job that is cancelled. It holds no text of a client's."""
    cancelled: Document = {
        "status": "cancelled",
        "finished_at": now,
        "updated_at": now,
        "next_attempt_at": None,
    }
    if (expires_at := retention.expires_at(JobStatus.CANCELLED, now)) is not None:
        cancelled["expires_at"] = expires_at
    return cancelled


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
