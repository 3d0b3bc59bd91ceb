"""Query parameters: strict, so that a misspelt filter never means "everything"."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from falcon.asgi import Request

from service.api import times
from service.clock import from_ms
from service.errors import InvalidQuery
from service.ids import is_id
from service.job import JobStatus
from service.labels import LABELS, NAMES, labels_of, without_type
from service.store import Filter

FILTERS = ("status", "type", *NAMES, "created_after", "created_before")
DEFAULT_LIMIT, MAX_LIMIT = 50, 200
_EPOCH = from_ms(0)


def parameters(req: Request, allowed: Collection[str]) -> Mapping[str, str]:
    """Each once, and none that isn't allowed. Raises `InvalidQuery`."""
    found = {}
    for name, value in req.params.items():
        if name not in allowed:
            raise InvalidQuery(f"there is no parameter {name[:100]!a}; allowed: {_list(allowed)}")
        if not isinstance(value, str):
            raise InvalidQuery(f"{name}: given more than once")
        found[name] = value
    return found


def filter_of(given: Mapping[str, str], statuses: Collection[str] = tuple(JobStatus)) -> Filter:
    """Raises `InvalidQuery`."""
    status, event_type = given.get("status"), given.get("type")
    if status is not None and status not in statuses:
        raise InvalidQuery(f"status: not one of {_list(statuses)}")
    if event_type is not None and not 0 < len(event_type) <= 100:
        raise InvalidQuery("type: not 1 to 100 characters")
    for label in LABELS:
        if label.name in given and not label.fits(given[label.name]):
            raise InvalidQuery(f"{label.name}: not {label.rule}")
    labels = labels_of(given)
    if event_type is None and (name := without_type(labels)) is not None:
        raise InvalidQuery(f"{name}: only with type, to which it belongs")
    return Filter(
        status=status,
        type=event_type,
        labels=labels,
        created_after=_moment(given, "created_after"),
        created_before=_moment(given, "created_before"),
    )


def limit_of(given: Mapping[str, str]) -> int:
    """How many on a page. Raises `InvalidQuery`."""
    text = given.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise InvalidQuery(f"limit: not a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def cursor_of(given: Mapping[str, str]) -> str | None:
    """The id below which the page begins. Raises `InvalidQuery`."""
    text = given.get("cursor")
    if text is None:
        return None
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        number, check = raw[:16].hex(), raw[16:]
    except (UnicodeEncodeError, binascii.Error):
        raise InvalidQuery("cursor: not one of ours") from None
    below = f"{number[:8]}-{number[8:12]}-{number[12:16]}-{number[16:20]}-{number[20:]}"
    if not is_id(below) or check != _check(raw[:16]) or cursor_at(below) != text:
        raise InvalidQuery("cursor: not one of ours")
    return below


def cursor_at(event_id: str) -> str:
    """The cursor of the page that begins below this event."""
    raw = bytes.fromhex(event_id.replace("-", ""))
    return base64.urlsafe_b64encode(raw + _check(raw)).decode().rstrip("=")


def _check(raw: bytes) -> bytes:
    """Tells a cursor that was cut or typed from one of ours; no protection, and none is needed."""
    return zlib.crc32(raw).to_bytes(4, "big")[:2]


def _moment(given: Mapping[str, str], name: str) -> datetime | None:
    text = given.get(name)
    if text is None:
        return None
    try:
        return max(times.parsed(text), _EPOCH)
    except ValueError as error:
        hint = "; a + must be sent as %2B" if " " in text else ""
        raise InvalidQuery(f"{name}: {error}{hint}") from None


def _list(names: Collection[Any]) -> str:
    return ", ".join(map(str, names))
