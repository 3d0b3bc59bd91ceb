"""A peer: the same stack as one would put it together from its parts, nothing of ours.

`gunicorn app:app` is its web, `dramatiq app` its worker.
"""

from __future__ import annotations

import functools
import os
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import dramatiq
import falcon
from dramatiq.brokers.redis import RedisBroker
from marshmallow import Schema, ValidationError, fields, validate
from pymongo import MongoClient, ReturnDocument
from pymongo.collection import Collection

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))  # type: ignore[no-untyped-call]


@functools.cache
def jobs() -> Collection[dict[str, Any]]:
    """Connects at the first use: after gunicorn and Dramatiq have forked."""
    client: MongoClient[dict[str, Any]] = MongoClient(
        os.environ["MONGODB_URI"], tz_aware=True, w="majority", journal=True
    )
    collection = client.get_default_database()["jobs"]
    collection.create_index([("status", 1), ("created_at", 1)])
    return collection


class EventSchema(Schema):
    """The body of `POST /events`."""

    type = fields.String(required=True, validate=validate.Length(min=1, max=100))
    payload = fields.Dict(required=True)


@dramatiq.actor(max_retries=4)
def handle(event_id: str) -> None:
    """Claims, sleeps `ms` of its payload, completes. A redelivered job is claimed again: its worker
    has died."""
    claimed = jobs().find_one_and_update(
        {"_id": event_id, "status": {"$in": ["pending", "processing"]}},
        {"$set": {"status": "processing", "started_at": _now()}, "$inc": {"attempts": 1}},
        return_document=ReturnDocument.AFTER,
    )
    if claimed is None:
        return
    if ms := claimed["payload"].get("ms"):
        time.sleep(ms / 1000)
    outcome = {"status": "completed", "result": {"ok": True}, "finished_at": _now()}
    jobs().update_one({"_id": event_id, "attempts": claimed["attempts"]}, {"$set": outcome})


class Events:
    """`/events`."""

    _schema = EventSchema()

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        try:
            event = self._schema.load(req.get_media())
        except ValidationError as error:
            raise falcon.HTTPUnprocessableEntity(description=str(error.messages)) from None
        document = {
            "_id": str(uuid.uuid4()),
            **event,
            "status": "pending",
            "attempts": 0,
            "created_at": _now(),
        }
        jobs().insert_one(document)
        handle.send(document["_id"])
        resp.status = falcon.HTTP_202
        resp.media = {"id": document["_id"], "status": "pending"}


class Health:
    """`/health`."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        jobs()
        resp.media = {"status": "ok"}


def _now() -> datetime:
    return datetime.now(UTC)


app = falcon.App()
app.add_route("/events", Events())
app.add_route("/health", Health())
