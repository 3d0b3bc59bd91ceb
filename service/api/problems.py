"""Every error as `application/problem+json` (RFC 9457): our own tree, Falcon's, any other."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import falcon
import falcon.asgi
import orjson

from service.errors import (
    BacklogFull,
    FieldError,
    InvalidEvent,
    InvalidQuery,
    KeyReused,
    MalformedBody,
    NotAllowedNow,
    PulseQueueError,
    StoreUnavailable,
    TooManySchedules,
    TooSlow,
    UnknownEvent,
    UnknownSchedule,
)

_log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "pulsequeue.request_id"
"""Where the edge puts the request's id into the ASGI scope."""
_RETRY_SECONDS = 1


class Kind(NamedTuple):
    status: int
    slug: str | None
    title: str


_KINDS: dict[type[PulseQueueError], Kind] = {
    MalformedBody: Kind(400, "malformed-body", "The body is not strict JSON"),
    InvalidQuery: Kind(400, "invalid-request", "A parameter or header is not allowed"),
    UnknownEvent: Kind(404, "unknown-event", "There is no such event"),
    UnknownSchedule: Kind(404, "unknown-schedule", "There is no such schedule"),
    TooManySchedules: Kind(409, "too-many-schedules", "There are as many as there may be"),
    NotAllowedNow: Kind(409, "not-allowed-now", "The event's status doesn't allow this"),
    InvalidEvent: Kind(422, "invalid-event", "The body doesn't fit"),
    KeyReused: Kind(422, "key-reused", "The idempotency key belongs to another body"),
    BacklogFull: Kind(503, "backlog-full", "Too much is waiting already"),
    TooSlow: Kind(503, "too-slow", "This takes MongoDB too long"),
    StoreUnavailable: Kind(503, "store-unavailable", "MongoDB gave no answer"),
}
_PHRASES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
"""As RFC 9110 has them; Python's depend on its version."""
_UNEXPECTED = Kind(500, "internal-error", "Something went wrong here")


def problem(error: PulseQueueError, request_id: str) -> dict[str, Any]:
    """The members of the problem that one of our errors is."""
    errors = error.errors if isinstance(error, InvalidEvent) else ()
    return members(kind_of(error), _detail(error), request_id, errors)


def members(
    kind: Kind, detail: str, request_id: str, errors: Sequence[FieldError] = ()
) -> dict[str, Any]:
    """The members of any problem."""
    made: dict[str, Any] = {
        "type": f"urn:pulsequeue:problem:{kind.slug}" if kind.slug else "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "request_id": request_id,
    }
    if errors:
        made["errors"] = [{"pointer": e.pointer, "detail": e.detail} for e in errors]
    return made


def plain(status: int) -> Kind:
    """A problem that is nothing but its status."""
    return Kind(status, None, _PHRASES.get(status) or HTTPStatus(status).phrase)


def kind_of(error: PulseQueueError) -> Kind:
    for ancestor in type(error).__mro__:
        if (kind := _KINDS.get(ancestor)) is not None:
            return kind
    return _UNEXPECTED


def retry_after(error: PulseQueueError) -> int | None:
    """Seconds after which trying again makes sense; None: it doesn't."""
    if isinstance(error, BacklogFull):
        return error.retry_after_seconds
    return _RETRY_SECONDS if isinstance(error, StoreUnavailable | TooSlow) else None


def install(app: falcon.asgi.App[Any, Any]) -> None:
    """Makes the app answer every error as a problem."""
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(PulseQueueError, _ours)
    app.add_error_handler(falcon.HTTPError, _falcons)


async def _ours(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: PulseQueueError, _params: Any
) -> None:
    if kind_of(error) is _UNEXPECTED:
        _log.error("unexpected", exc_info=error, extra={"request_id": request_id_of(req)})
    seconds = retry_after(error)
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    _write(resp, problem(error, request_id_of(req)), headers)


async def _falcons(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, _params: Any
) -> None:
    status = error.status_code
    made = members(plain(status), error.description or _details(status), request_id_of(req))
    headers = error.headers or {}
    _write(resp, made, headers if isinstance(headers, Mapping) else dict(headers))


async def _unexpected(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, _params: Any
) -> None:
    request_id = request_id_of(req)
    _log.error("unexpected", exc_info=error, extra={"request_id": request_id, "path": req.path})
    _write(resp, unexpected(request_id), {})


def unexpected(request_id: str) -> dict[str, Any]:
    """What a client is told of an error that we don't know ourselves: where to find it."""
    detail = "the log has it under this request_id"
    return members(_UNEXPECTED, detail, request_id)


def _write(resp: falcon.asgi.Response, made: dict[str, Any], headers: Mapping[str, str]) -> None:
    resp.status = made["status"]
    resp.data = orjson.dumps(made)
    resp.content_type = MEDIA_TYPE
    if headers:
        resp.set_headers(headers)


def request_id_of(req: falcon.asgi.Request) -> str:
    request_id: str = req.scope[REQUEST_ID]
    return request_id


def _detail(error: PulseQueueError) -> str:
    """Without what the driver says of the servers: that is for the log."""
    if isinstance(error, StoreUnavailable):
        return "MongoDB is unavailable; whether anything was stored is not known"
    return str(error)


def _details(status: int) -> str:
    return {
        400: "the request can't be understood",
        404: "there is nothing at this path",
        405: "this path has other methods: see Allow",
    }.get(status, HTTPStatus(status).description or HTTPStatus(status).phrase)
