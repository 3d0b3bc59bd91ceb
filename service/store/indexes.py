"""The indexes: few, and partial where only open jobs are asked for.

A tick of the sweep therefore costs the same with ten million finished jobs as with none.
"""

from __future__ import annotations

import pymongo
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.database import Database

from service.labels import LABELS
from service.store.guard import mongo_errors
from service.store.mongo import Document

_BUILD_SECONDS = 3_600.0
_RESCUES_SECONDS = 7 * 86_400
"""How long a rescue that is never finished is remembered."""
JOB_INDEXES = [
    # What waits, by what can be blocked as one, in the order in which it should run: no look passes
    # over what it isn't looking for. Priorities descend, so that `normal` comes first: MongoDB
    # keeps the keys of what was claimed for minutes, and a look for `high` or `low` where there is
    # none would have to pass over all those that lie behind it.
    IndexModel(
        [
            ("type", ASCENDING),
            ("priority", DESCENDING),
            ("next_attempt_at", ASCENDING),
            ("_id", ASCENDING),
        ],
        name="lanes",
        partialFilterExpression={"status": "pending"},
    ),
    # Listings by status, and all that is being processed.
    IndexModel([("status", ASCENDING), ("_id", DESCENDING)], name="by_status"),
    IndexModel([("type", ASCENDING), ("_id", DESCENDING)], name="by_type"),
    # What is retried by type, few among millions. Over all statuses it would cost each claim and
    # each outcome two keys more, 8 % of what a job costs MongoDB; jobs rarely come and go here.
    # Two, because a partial index on one of several statuses needs MongoDB 6; with the status among
    # their keys, so that they are counted without reading the jobs.
    *(
        IndexModel(
            [("status", ASCENDING), ("type", ASCENDING), ("_id", DESCENDING)],
            name=f"{status}_by_type",
            partialFilterExpression={"status": status},
        )
        for status in ("failed", "cancelled")
    ),
    IndexModel(
        [("idempotency_key", ASCENDING)],
        name="idempotency_key",
        unique=True,
        partialFilterExpression={"idempotency_key": {"$exists": True}},
    ),
    IndexModel(
        [("expires_at", ASCENDING)],
        name="expiry",
        expireAfterSeconds=0,
        partialFilterExpression={"expires_at": {"$exists": True}},
    ),
    IndexModel(
        [("company", ASCENDING)],
        name="suspects",
        partialFilterExpression={"status": "pending", "company": {"$exists": True}},
    ),
    IndexModel(
        [("dead_letter_due", ASCENDING)],
        name="dead_letters",
        partialFilterExpression={"dead_letter_due": {"$exists": True}},
    ),
    # Listings and changes by label. Without the status among their keys, so that they are written
    # once in an event's life.
    *(
        IndexModel(
            [
                *([("type", ASCENDING)] if label.of_type else []),
                (label.name, ASCENDING),
                ("_id", DESCENDING),
            ],
            name=f"by_{label.name}",
            partialFilterExpression={label.name: {"$exists": True}},
        )
        for label in LABELS
    ),
    # The few events of schedules that aren't confirmed yet.
    IndexModel(
        [("unconfirmed", ASCENDING)],
        name="unconfirmed",
        partialFilterExpression={"unconfirmed": {"$exists": True}},
    ),
]

FORMER_INDEXES = ("waiting",)
"""What processes of a former version ask for by name; their start makes it anew."""


def ensure_indexes(database: Database[Document]) -> None:
    """Creates what is missing; cheap where nothing is. Raises `StoreUnavailable`."""
    with mongo_errors():
        there = database["jobs"].index_information()
        missing = [index for index in JOB_INDEXES if index.document["name"] not in there]
        if missing:
            # On a large collection that takes long, and a build that is given up begins anew.
            with pymongo.timeout(_BUILD_SECONDS):
                database["jobs"].create_indexes(missing)
        database["rescues"].create_index("at", expireAfterSeconds=_RESCUES_SECONDS)
        database["schedules"].create_index("next_run_at", name="due")


def drop_former_indexes(database: Database[Document]) -> list[str]:
    """Drops what only a former version needs, where it is there; what that was. Each costs every
    accepted event and every claim a key. Raises `StoreUnavailable`."""
    with mongo_errors():
        there = database["jobs"].index_information()
        former = [name for name in FORMER_INDEXES if name in there]
        for name in former:
            database["jobs"].drop_index(name)
    return former
