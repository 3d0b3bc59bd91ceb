"""Takes new events: each becomes a job, or is known by its idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect, BulkWriteError

from service.errors import KeyReused, StoreUnavailable
from service.job import Hint
from service.store import commands
from service.store.documents import hint_of
from service.store.guard import mongo_errors
from service.store.mongo import Document

_DUPLICATE_KEY = 11000

_TRIES_AFTER_EXPIRY = 3
"""How often a key is taken again whose first event expires in just that moment."""

_NOT_IN_A_REPLAY = dict.fromkeys(("payload", "result", "error", "history", "progress"), 0)
"""What no answer to a known key shows; a thousand of them at once may be large."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the store has for a posted event: its document, new or (a known key) the first one's,
    without what may be large."""

    document: Document
    replayed: bool = False

    @property
    def hint(self) -> Hint:
        return hint_of(self.document)


class NewJobs:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._jobs: Collection[Document] = database["jobs"]

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
