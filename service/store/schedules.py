"""Schedules as clients and operators see them: one document each, `_id` its name.

Fields: `cron` and `timezone`, or `every_seconds`; `event` as it was posted; `overlap`, `missed`,
`paused`; `next_run_at`, `last_run_at`, `last_event_id`. Inside, beside those: `template` (the
event's document without what each event has of its own), `size` (bytes of the event as JSON),
`token` (another one with each change), `chosen` (see `service.store.ticks`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from service.errors import StoreUnavailable, TooManySchedules, UnknownSchedule
from service.ids import random_chunk
from service.store.guard import mongo_errors
from service.store.mongo import Document
from service.store.payloads import OneByOne
from service.store.ticks import Ticks

MOST_SCHEDULES = 10_000
_TRIES = 20
"""How often a change begins anew because a tick came between; they come once a second at most."""


def new_token() -> str:
    """Says which state of a schedule is meant; no two states ever have the same."""
    return random_chunk().hex()


class Schedules:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._schedules: Collection[Document] = database["schedules"]
        self._lasting = self._schedules.with_options(read_concern=ReadConcern("majority"))
        self._one_by_one = OneByOne(self._lasting)
        self._ticks = Ticks(database)

    def get(self, name: str) -> Document:
        """Raises `UnknownSchedule`."""
        with mongo_errors():
            document = self._lasting.find_one({"_id": name})
        if document is None:
            raise _unknown(name)
        return document

    def page(self, limit: int, after: str, most_bytes: int) -> tuple[list[Document], bool]:
        """By name, at most `limit`, those after a name; and whether there are more. A page ends
        early where its events get large."""
        query = {"_id": {"$gt": after}}
        return self._one_by_one.page(query, sort=[("_id", 1)], limit=limit, most_bytes=most_bytes)

    def put(
        self,
        name: str,
        definition: Document,
        next_run_at: Callable[[Document | None], datetime | None],
        now: datetime,
    ) -> tuple[Document, bool]:
        """Makes the schedule, or changes all of its definition; and whether it was made.

        `next_run_at` is asked with what there is (None: nothing). What has run stays. A tick that
        comes between is not lost: the change begins anew on what it left. Raises
        `TooManySchedules`.
        """
        for _ in range(_TRIES):
            with mongo_errors():
                known = self._lasting.find_one({"_id": name}, {"event": 0, "template": 0})
                changed = {"next_run_at": next_run_at(known), "updated_at": now}
                fields = definition | changed | {"token": new_token()}
                if known is None:
                    document = self._insert(name, fields, now)
                else:
                    document = self._schedules.find_one_and_update(
                        {"_id": name, "token": known["token"]},
                        {"$set": fields},
                        return_document=ReturnDocument.AFTER,
                    )
            if document is not None:
                return document, known is None
        raise StoreUnavailable(f"schedule {name} is changed all the time")

    def _insert(self, name: str, fields: Document, now: datetime) -> Document | None:
        """The new schedule's document; None: somebody else has just made it. Counted before and
        after, so that however many come at once, no more are there in the end."""
        self._check_count(MOST_SCHEDULES - 1)
        has_run = {"last_run_at": None, "last_event_id": None, "chosen": None}
        document = {"_id": name, **fields, "created_at": now, **has_run}
        try:
            self._schedules.insert_one(document)
        except DuplicateKeyError:
            return None
        try:
            self._check_count(MOST_SCHEDULES)
        except TooManySchedules:
            self._schedules.delete_one({"_id": name, "token": fields["token"]})
            raise
        return document

    def _check_count(self, most: int) -> None:
        if self._schedules.count_documents({}, hint="_id_", limit=most + 1) > most:
            raise TooManySchedules(f"there are {MOST_SCHEDULES} schedules already")

    def delete(self, name: str, now: datetime) -> None:
        """Removes the schedule; events that it has made stay, one of this moment included. Raises
        `UnknownSchedule`."""
        for _ in range(_TRIES):
            with mongo_errors():
                known = self._lasting.find_one({"_id": name}, {"token": 1, "chosen": 1})
                if known is None:
                    raise _unknown(name)
                if known["chosen"] is not None:
                    self._ticks.confirm([known["chosen"]], now)
                found = self._schedules.delete_one({"_id": name, "token": known["token"]})
            if found.deleted_count:
                return
        raise StoreUnavailable(f"schedule {name} is changed all the time")

    def ran(self, name: str, event_id: str, at: datetime) -> None:
        """Notes an event that a client had it make."""
        with mongo_errors():
            self._schedules.update_one(
                {"_id": name}, {"$set": {"last_event_id": event_id, "last_run_at": at}}
            )

    def last_runs(self, most: int) -> dict[str, datetime]:
        """When schedules have run last, by name; the first `most` of those that have."""
        with mongo_errors():
            found = self._schedules.find(
                {"last_run_at": {"$type": "date"}},
                {"last_run_at": 1},
                sort=[("_id", 1)],
                limit=most,
            )
            return {d["_id"]: d["last_run_at"] for d in found}

    def late(self, before: datetime, limit: int = 1) -> list[tuple[str, datetime]]:
        """Schedules whose tick was due before then, the latest first, with that tick."""
        with mongo_errors():
            found = self._schedules.find(
                {"next_run_at": {"$lt": before}},
                {"next_run_at": 1},
                sort=[("next_run_at", 1)],
                limit=limit,
            )
            return [(d["_id"], d["next_run_at"]) for d in found]


def _unknown(name: str) -> UnknownSchedule:
    return UnknownSchedule(f"there is no schedule {name[:100]!a}")
