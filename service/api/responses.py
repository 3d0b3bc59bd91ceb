"""What clients get: events as JSON, and the headers that go with them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import orjson
from falcon.asgi import Response

from service.api.times import shown
from service.clock import ServerClock
from service.labels import NAMES
from service.store import Accepted
from service.store.mongo import Document
from service.store.payloads import Packed

JSON = "application/json"
_MOMENTS = (
    "created_at",
    "updated_at",
    "run_at",
    "started_at",
    "finished_at",
)
_FINAL = frozenset({"completed", "failed", "cancelled"})
POLL_SECONDS = "1"
_LARGE, _MEMBER = 65_536, 32
"""From how many characters on an event is large, and as how many each member counts."""


def is_final(document: Document) -> bool:
    return document["status"] in _FINAL


def event(document: Document) -> dict[str, Any]:
    """An event as `GET /events/{id}` shows it; what is ours alone stays inside."""
    made: dict[str, Any] = {
        "id": document["_id"],
        "type": document["type"],
        "status": document["status"],
        "payload": _large(document["payload"]),
        "priority": document["priority"],
        "attempts": document["attempts"],
        "max_attempts": document["max_attempts"],
    }
    for name in NAMES:
        made[name] = document.get(name)
    for name in _MOMENTS:
        made[name] = shown(document[name])
    pending = document["status"] == "pending"
    made["next_attempt_at"] = shown(document["next_attempt_at"]) if pending else None
    made["result"] = _large(document["result"])
    made["error"] = document["error"]
    made["history"] = [_attempt(entry) for entry in document["history"]]
    if "progress" in document:
        made["progress"] = document["progress"]
    return made


def schedule(document: Document, upcoming: list[datetime]) -> dict[str, Any]:
    """A schedule as `GET /schedules/{name}` shows it."""
    return {
        "name": document["_id"],
        **{name: document[name] for name in ("cron", "timezone", "every_seconds")},
        "event": _large(document["event"]),
        **{name: document[name] for name in ("overlap", "missed", "paused")},
        "created_at": shown(document["created_at"]),
        "updated_at": shown(document["updated_at"]),
        "next_run_at": shown(document["next_run_at"]),
        "last_run_at": shown(document["last_run_at"]),
        "last_event_id": document["last_event_id"],
        "upcoming": [shown(moment) for moment in upcoming],
    }


def _large(value: Any) -> Any:
    """A value for `dumps`. One that is packed becomes JSON at once, so that it is never there as
    objects beside another one."""
    return orjson.Fragment(_json_of(value)) if isinstance(value, Packed) else value


def _json_of(packed: Packed) -> bytes:
    inside = []
    for piece in packed.pieces():
        if isinstance(piece, tuple):
            name, member = piece
            begin = b"" if packed.is_list else dumps(name) + b":"
            inside.append(begin + _json_of(member))
        else:
            inside.append(dumps(piece)[1:-1])
    return (b"[%b]" if packed.is_list else b"{%b}") % b",".join(inside)


def _attempt(entry: Document) -> dict[str, Any]:
    return entry | {
        "started_at": shown(entry["started_at"]),
        "finished_at": shown(entry["finished_at"]),
    }


def set_page_headers(
    resp: Response, path_of_list: str, given: Mapping[str, str], cursor: str | None
) -> None:
    """Of one page of a list; `given`: the request's parameters, `cursor`: where the next begins."""
    resp.content_type = JSON
    resp.set_header("Cache-Control", "no-cache")
    if cursor is not None:
        target = urlencode({**given, "cursor": cursor})
        resp.set_header("Link", f'<{path_of_list}?{target}>; rel="next"')


def accepted(answer: Accepted) -> dict[str, Any]:
    """An event as `POST /events` answers it."""
    document = answer.document
    schedule = {"schedule": document["schedule"]} if "schedule" in document else {}
    return {
        "id": document["_id"],
        "type": document["type"],
        "status": document["status"],
        "created_at": shown(document["created_at"]),
        **schedule,
        "links": {"self": path(document["_id"])},
    }


def accepted_json(answer: Accepted) -> bytes:
    """An event as `POST /events` answers it. JSON by hand: most requests are answered with it, and
    nothing in it needs escaping (a type's name is lower-case letters, digits, `_`, `.`, `-`)."""
    document = answer.document
    event_id = document["_id"]
    return (
        f'{{"id":"{event_id}","type":"{document["type"]}","status":"{document["status"]}",'
        f'"created_at":"{shown(document["created_at"])}",'
        f'"links":{{"self":"/events/{event_id}"}}}}'
    ).encode()


def path(event_id: str) -> str:
    return f"/events/{event_id}"


def retry_after(document: Document, clock: ServerClock) -> str | None:
    """Seconds after which the event may look different; None: never by itself."""
    if is_final(document):
        return None
    if document["status"] != "pending":
        return POLL_SECONDS
    seconds = math.ceil((document["next_attempt_at"] - clock.now()).total_seconds())
    return POLL_SECONDS if seconds <= 1 else str(seconds)


def tagged_event(document: Document) -> tuple[bytes, str]:
    """An event as JSON, and its `ETag`."""
    body = dumps(event(document))
    return body, etag(body)


def is_large(*documents: Document) -> bool:
    """Whether it takes more than a few milliseconds to make JSON of them. How much of them is
    looked at is bounded, too."""
    members: list[Any] = []
    for document in documents:
        members += (document["payload"], document["result"], document.get("progress"))
    left = _LARGE
    while members and left > 0:
        member = members.pop()
        if isinstance(member, str):
            left -= len(member)
        elif isinstance(member, Packed):
            return True
        elif isinstance(member, dict | list):
            left -= _MEMBER * (1 + len(member))
            if left > 0:
                members.extend(member.values() if isinstance(member, dict) else member)
    return left <= 0


def etag(body: bytes) -> str:
    """Strong: the same tag is the same bytes."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def matches(if_none_match: str, tag: str) -> bool:
    """Whether the client has it (RFC 9110, 13.1.2: weak comparison)."""
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in given or tag in given


def dumps(value: Any) -> bytes:
    """JSON in UTF-8; a result may hold what only MongoDB knows, which is shown as text."""
    return orjson.dumps(value, default=str)


def write_json(resp: Response, value: object, status: int = 200) -> None:
    """An answer that nobody should keep."""
    resp.status = status
    resp.data = dumps(value)
    resp.content_type = JSON
    resp.set_header("Cache-Control", "no-store")
