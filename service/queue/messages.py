"""Dramatiq messages: JSON by orjson, and the ones that hint at a job."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
import orjson
from dramatiq.encoder import Encoder, MessageData
from dramatiq.errors import DecodeError

from service.ids import is_id
from service.job import Hint, Priority

MESSAGE_VERSION = 1
_ID = slice(15, 51)
_PRIORITIES = frozenset(p.value for p in Priority)


class OrjsonEncoder(Encoder):
    """Dramatiq's JSON, by a faster library; never pickle."""

    def encode(self, data: MessageData) -> bytes:
        return orjson.dumps(data)

    def decode(self, data: bytes) -> MessageData:
        try:
            decoded = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise DecodeError("not JSON", data, error) from error  # type: ignore[no-untyped-call]
        if not isinstance(decoded, dict):
            raise DecodeError("not an object", data, None)  # type: ignore[no-untyped-call]
        return decoded


dramatiq.set_encoder(OrjsonEncoder())


def hint_message(hint: Hint) -> dramatiq.Message[None]:
    """The message that a job is ready: its id and, as its actor, its type; nothing else of it."""
    return dramatiq.Message(**_fields(hint))


def lane_message(hint: Hint) -> bytes:
    """The same message as it lies in a lane: JSON, without a detour over Dramatiq's objects, as
    every accepted event comes along here."""
    return orjson.dumps(_fields(hint))


def _fields(hint: Hint) -> dict[str, Any]:
    """The job's id stands first, so that scripts and readers find it without parsing."""
    return {
        "message_id": hint.job_id,
        "queue_name": hint.queue,
        "actor_name": hint.type,
        "args": (hint.job_id,),
        "kwargs": {},
        "options": {"priority": hint.priority, "v": MESSAGE_VERSION},
        "message_timestamp": int(time.time() * 1000),
    }


def job_id_in(message: bytes) -> str:
    """The job of a message that lies in a lane."""
    return message[_ID].decode(errors="replace")


def hint_in(queue: str, message: bytes) -> Hint | None:
    """The hint that a message in a lane of that queue is; None where it is junk."""
    try:
        fields = orjson.loads(message)
        job_id, job_type = fields["message_id"], fields["actor_name"]
        priority = fields["options"].get("priority")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    if not (isinstance(job_id, str) and is_id(job_id) and isinstance(job_type, str)):
        return None
    return Hint(job_id, job_type, queue, priority if priority in _PRIORITIES else Priority.NORMAL)
