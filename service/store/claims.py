"""Claims: a job is taken for one worker, under a fencing token of its own."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database

from service.job import Job
from service.store import commands
from service.store.batches import fitting
from service.store.documents import CLAIMED_FIELDS, WITHOUT_PAYLOAD, job_of
from service.store.guard import mongo_errors
from service.store.mongo import Document

_CLAIM_SLACK = timedelta(milliseconds=100)
"""Two processes' readings of the server's clock may differ by some milliseconds; a claim that came
a moment early by that must not be refused, because its message would be gone."""


class Claims:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._jobs: Collection[Document] = database["jobs"]
        self._claim_number = itertools.count()
        self._claim_prefix = os.urandom(6).hex()

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
                    self._database, "jobs", {"_id": job_ids[0], **free}, update, CLAIMED_FIELDS
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
        found: Any = self._jobs.find_raw_batches(mine, CLAIMED_FIELDS, batch_size=len(job_ids))
        with found as batches:
            jobs = self._fitting(batches, most_bytes)
        if len(jobs) < count:
            read = {job.id for job in jobs}
            rest = {"$in": [job_id for job_id in job_ids if job_id not in read]}
            jobs += map(job_of, self._jobs.find({**mine, "_id": rest}, WITHOUT_PAYLOAD))
        return jobs

    def _fitting(self, batches: Iterable[bytes], most_bytes: float) -> list[Job]:
        options = self._jobs.codec_options
        return [job_of(d, size) for d, size in fitting(batches, most_bytes, options)]
