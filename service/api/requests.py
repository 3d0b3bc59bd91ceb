"""What resources read of a request: headers, parameters and bodies."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import falcon
from falcon import mediatypes
from falcon.asgi import Request

from service.api import strict_json
from service.api.edge import BODY, HEADERS
from service.concurrency.cpu_lane import CpuLane
from service.errors import InvalidQuery
from service.ids import is_id

MAX_WAIT_SECONDS = 20
_LARGE_BYTES = 32_768
_CONTAINER_BYTES = 16
_SURELY_SMALL_BYTES = _LARGE_BYTES // (_CONTAINER_BYTES + 1)
_is_key = re.compile(r"[!-~]{1,255}").fullmatch
_is_traceparent = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
).fullmatch
_prefers_wait = re.compile(
    r'(?:^|[,\s])wait\s*=\s*"?(\d{1,9})"?\s*(?:[,;]|$)', re.IGNORECASE
).search


async def json_body(req: Request, lane: CpuLane, max_nesting: int) -> Any:
    """The parsed body, fit to be stored. Raises for what is no JSON by its headers (411, 415) or by
    itself, and `InvalidEvent`."""
    body = checked_body(req)
    return await lane.run(lambda: storable_json(body, max_nesting), is_large=is_large(body))


def storable_json(body: bytes, max_nesting: int) -> Any:
    """The value, fit to be stored. Raises `MalformedBody`, `InvalidEvent`."""
    value, is_suspicious = strict_json.parse(body, max_nesting)
    if is_suspicious:
        strict_json.check_storable(value)
    return value


def is_large(body: bytes) -> bool:
    """Whether parsing it takes more than a few milliseconds. A container takes as long as
    `_CONTAINER_BYTES` of anything else."""
    size = len(body)
    return size >= _SURELY_SMALL_BYTES and (
        size + _CONTAINER_BYTES * (body.count(b"[") + body.count(b"{")) >= _LARGE_BYTES
    )


def checked_body(req: Request) -> bytes:
    """The body, which is JSON by its headers. Raises 411, 415."""
    body: bytes = req.scope[BODY]
    headers: dict[bytes, bytes] = req.scope[HEADERS]
    if not (body or b"content-length" in headers or b"transfer-encoding" in headers):
        raise falcon.HTTPLengthRequired(description="a body is needed, and its Content-Length")
    if not _is_json(req.content_type):
        raise falcon.HTTPUnsupportedMediaType(description="Content-Type must be application/json")
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        detail = "the body must not be compressed: no Content-Encoding but identity"
        raise falcon.HTTPUnsupportedMediaType(description=detail)
    return body


@lru_cache(maxsize=64)
def _is_json(content_type: str | None) -> bool:
    kind, parameters = mediatypes.parse_header(content_type or "")
    kind = kind.strip().lower()
    is_json = kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
    return is_json and parameters.get("charset", "utf-8").lower() in ("utf-8", "utf8")


def check_accept(req: Request) -> None:
    """Raises 406 where the client takes no JSON."""
    accept: bytes = req.scope[HEADERS].get(b"accept", b"*/*")
    if not _takes_json(accept):
        raise falcon.HTTPNotAcceptable(description="this answers in application/json only")


@lru_cache(maxsize=256)
def _takes_json(accept: bytes) -> bool:
    return prefers(accept.decode("latin-1") or "*/*", ("application/json",)) is not None


@lru_cache(maxsize=256)
def prefers(accept: str, media_types: tuple[str, ...]) -> str | None:
    """The one of the media types that the client likes best; the first among equals."""
    try:
        return mediatypes.best_match(list(media_types), accept) or None
    except ValueError:
        return None


def idempotency_key(req: Request) -> str | None:
    """Raises `InvalidQuery`."""
    given: bytes | None = req.scope[HEADERS].get(b"idempotency-key")
    if given is None:
        return None
    key = given.decode("latin-1")
    if not _is_key(key):
        raise InvalidQuery("Idempotency-Key: not 1 to 255 visible ASCII characters")
    return key


def traceparent(req: Request) -> str | None:
    """The W3C trace context; one that isn't well-formed is ignored, as W3C says."""
    given: bytes | None = req.scope[HEADERS].get(b"traceparent")
    if given is None:
        return None
    text = given.decode("latin-1")
    return text if _is_traceparent(text) else None


def wait_seconds(req: Request) -> int | None:
    """How long the client would wait for a final status (`Prefer: wait=N`), at most 20 s."""
    prefer = req.get_header("Prefer")
    found = _prefers_wait(prefer) if prefer is not None else None
    return None if found is None else min(int(found.group(1)), MAX_WAIT_SECONDS)


def check_id(event_id: str) -> None:
    """Raises `InvalidQuery` for what can't be an event's id."""
    if not is_id(event_id):
        raise InvalidQuery("the id is not a UUIDv7 in its canonical form")


def no_query(req: Request) -> None:
    """Raises `InvalidQuery` where a path that takes no parameters gets some."""
    if req.query_string:
        raise InvalidQuery("this takes no query parameters")
