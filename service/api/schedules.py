"""Schedules: made, changed, looked at, removed, and run out of turn."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson
from falcon.asgi import Request, Response
from marshmallow import ValidationError

from service.api import problems, queries, requests, responses
from service.api.edge import BODY
from service.api.intake import Intake, fingerprint
from service.api.schemas import ScheduleSchema, field_errors, load
from service.concurrency.cpu_lane import Steps
from service.errors import (
    FieldError,
    InvalidEvent,
    InvalidQuery,
    StoreUnavailable,
    UnknownSchedule,
)
from service.labels import SCHEDULE
from service.store import Accepted
from service.store.mongo import Document
from service.ticks import Timing, check_cron, check_timezone
from service.web.process import WebProcess

_log = logging.getLogger(__name__)
_SCHEMA = ScheduleSchema()
_MOST_PAGE_BYTES = 4_194_304
_UPCOMING = 5
_OF_EVENTS_ALONE = {"_id", "type", "payload", "created_at", "updated_at", "next_attempt_at"}
"""What of an event's document is not in a schedule's template: each event has its own."""


class SchedulesResource:
    """`/schedules`."""

    def __init__(self, web: WebProcess) -> None:
        self._web = web

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of schedules, by name."""
        requests.check_accept(req)
        given = queries.parameters(req, ("limit", "cursor"))
        limit, after = queries.limit_of(given), given.get("cursor", "")
        if "cursor" in given and not SCHEDULE.fits(after):
            raise InvalidQuery("cursor: not one of ours")
        page, more = await self._web.schedule_reads.run(
            self._web.stores.schedules.page, limit, after, _MOST_PAGE_BYTES
        )
        cursor = page[-1]["_id"] if more else None
        resp.data = await self._web.cpu_lane.run_steps(_page(page, cursor), is_large=bool(page))
        responses.set_page_headers(resp, "/schedules", given, cursor)

    on_head = on_get


def _page(documents: list[Document], cursor: str | None) -> Steps[bytes]:
    schedules = []
    for document in documents:
        schedules.append(_json_of(document))
        yield
    return b'{"schedules":[%b],"next_cursor":%b}' % (
        b",".join(schedules),
        responses.dumps(cursor),
    )


def _json_of(document: Document) -> bytes:
    upcoming = Timing.of(document).upcoming(document["next_run_at"], _UPCOMING)
    return responses.dumps(responses.schedule(document, upcoming))


class ScheduleResource:
    """`/schedules/{name}`."""

    def __init__(self, web: WebProcess, intake: Intake) -> None:
        self._web, self._intake = web, intake

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        """The schedule as it is now: 200, or 304 where the client has it."""
        _check(req, name)
        document = await self._web.schedule_reads.run(self._web.stores.schedules.get, name)
        await self._write(req, resp, document)

    on_head = on_get

    async def on_put(self, req: Request, resp: Response, name: str) -> None:
        """201: it is made; 200: all of its definition is changed."""
        _check(req, name)
        web = self._web
        body = await requests.json_body(req, web.cpu_lane, web.settings.max_nesting)
        document, made = await web.single_changes.run(self._put, name, body)
        await self._write(req, resp, document, 201 if made else 200)
        if made:
            resp.set_header("Location", f"/schedules/{name}")

    async def on_delete(self, req: Request, resp: Response, name: str) -> None:
        """204: it is removed; what it has made stays."""
        _check(req, name)
        web = self._web
        await web.single_changes.run(web.stores.schedules.delete, name, web.clock.now())
        resp.status = 204

    def _put(self, name: str, body: Any) -> tuple[Document, bool]:
        now = self._web.clock.now()
        given = _loaded(body)
        timing = _checked_timing(given, now)
        template = _of_event(lambda: self._intake.of_schedule(given["event"]))
        definition: Document = {
            "cron": timing.cron,
            "timezone": None if timing.cron is None else timing.timezone,
            "every_seconds": timing.every_seconds,
            "event": given["event"],
            "overlap": given.get("overlap", "allow"),
            "missed": given.get("missed", "one"),
            "paused": given.get("paused", False),
            "template": {n: v for n, v in template.items() if n not in _OF_EVENTS_ALONE},
            "size": len(orjson.dumps(given["event"])),
        }

        def next_run_at(known: Document | None) -> datetime | None:
            return _next_run_at(timing, known, now, is_paused=definition["paused"])

        return self._web.stores.schedules.put(name, definition, next_run_at, now)

    async def _write(
        self, req: Request, resp: Response, document: Document, status: int = 200
    ) -> None:
        body = await self._web.cpu_lane.run(lambda: _json_of(document), is_large=True)
        tag = responses.etag(body)
        resp.set_headers({"ETag": tag, "Cache-Control": "no-cache"})
        if_none_match = req.get_header("If-None-Match")
        if status == 200 and if_none_match is not None and responses.matches(if_none_match, tag):
            resp.status = 304
            return
        resp.status, resp.data, resp.content_type = status, body, responses.JSON


class RunResource:
    """`/schedules/{name}/run`."""

    def __init__(self, web: WebProcess, intake: Intake) -> None:
        self._web, self._intake = web, intake

    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        """202: the schedule's event, as if it were posted now; its ticks go on as they would."""
        _check(req, name)
        key = requests.idempotency_key(req)
        web = self._web
        if req.scope[BODY]:
            body = await requests.json_body(req, web.cpu_lane, web.settings.max_nesting)
            if body != {}:
                raise InvalidEvent("this takes no body", [FieldError("", "Not an empty object.")])
        schedule = await web.schedule_reads.run(web.stores.schedules.get, name)
        document = self._document(req, schedule, key)
        answer = await web.acceptor.accept(document, schedule["size"])
        if not answer.replayed:
            await self._note(name, answer)
        self._write(resp, answer)

    def _document(self, req: Request, schedule: Document, key: str | None) -> Document:
        request_id, traceparent = problems.request_id_of(req), requests.traceparent(req)
        document = self._intake.of_schedule(schedule["event"], request_id, traceparent)
        document["schedule"] = schedule["_id"]
        if key is not None:
            document["idempotency_key"] = key
            document["fingerprint"] = fingerprint({"schedule": schedule["_id"]})
        return document

    async def _note(self, name: str, answer: Accepted) -> None:
        event_id, at = answer.document["_id"], answer.document["created_at"]
        try:
            await self._web.single_changes.run(self._web.stores.schedules.ran, name, event_id, at)
        except StoreUnavailable as error:  # the event is there, and that is what was asked for
            _log.warning("a schedule doesn't show its last event: %s", error)

    def _write(self, resp: Response, answer: Accepted) -> None:
        resp.status = 202
        resp.data = responses.dumps(responses.accepted(answer))
        resp.content_type = responses.JSON
        resp.set_header("Location", responses.path(answer.document["_id"]))
        seconds = responses.retry_after(answer.document, self._web.clock)
        if seconds is not None:
            resp.set_header("Retry-After", seconds)
        if answer.replayed:
            resp.set_header("Idempotency-Replayed", "true")


# what is asked for


def _check(req: Request, name: str) -> None:
    requests.check_accept(req)
    requests.no_query(req)
    if not SCHEDULE.fits(name):
        raise UnknownSchedule("no schedule can have this name")


def _loaded(body: Any) -> dict[str, Any]:
    if type(body) is not dict:
        raise InvalidEvent("a schedule is an object", [FieldError("", "Not an object.")])
    try:
        return load(_SCHEMA, body)
    except ValidationError as error:
        errors = field_errors(error.messages)
        detail = f"{errors[0].pointer or 'the body'}: {errors[0].detail}"
        raise InvalidEvent(detail[:300], errors) from None


def _checked_timing(given: dict[str, Any], now: datetime) -> Timing:
    """Raises `InvalidEvent`, also where it would never tick."""
    cron, zone, seconds = (given.get(name) for name in ("cron", "timezone", "every_seconds"))
    if (cron is None) == (seconds is None):
        raise _refused("", "either cron or every_seconds is needed, and not both")
    if seconds is not None:
        if zone is not None:
            raise _refused("/timezone", "a timezone is for cron only")
        return Timing(every_seconds=seconds)
    timing = Timing(cron=cron, timezone=zone or "UTC")
    checks = {"/cron": (check_cron, str(cron)), "/timezone": (check_timezone, timing.timezone)}
    for pointer, (check, text) in checks.items():
        try:
            check(text)
        except ValueError as error:
            raise _refused(pointer, str(error)) from None
    if timing.after(now) is None:
        raise _refused("/cron", "this never comes true")
    return timing


def _refused(pointer: str, detail: str) -> InvalidEvent:
    where = pointer or "the body"
    return InvalidEvent(f"{where}: {detail}", [FieldError(pointer, detail)])


def _of_event(make: Callable[[], Document]) -> Document:
    """The event's document; what is wrong with it is told by pointers into the whole body."""
    try:
        return make()
    except InvalidEvent as error:
        errors = [FieldError(f"/event{e.pointer}", e.detail) for e in error.errors]
        raise InvalidEvent(f"the event doesn't fit: {error}", errors) from None


def _next_run_at(
    timing: Timing, known: Document | None, now: datetime, *, is_paused: bool
) -> datetime | None:
    """A tick that is due and not yet made stays, unless the change is about when it ticks."""
    if is_paused:
        return None
    if known is not None and not known["paused"] and Timing.of(known) == timing:
        kept: datetime | None = known["next_run_at"]
        return kept
    return timing.after(now)
