"""From a parsed body to a valid event: envelope first, then the payload by its type's schema."""

from __future__ import annotations

import difflib
import hashlib
from datetime import datetime, timedelta
from typing import Any

import orjson
from marshmallow import Schema, ValidationError

from service.api.schemas import (
    YEAR_MS,
    BatchItemSchema,
    EventSchema,
    ScheduleEventSchema,
    field_errors,
    load,
)
from service.catalog import Catalog, EventType
from service.clock import ServerClock
from service.errors import FieldError, InvalidEvent
from service.job import NewEvent, Priority
from service.labels import POSTED, labels_of
from service.store.documents import new_document
from service.store.mongo import Document
from service.store.payloads import packed

_SINGLE, _ITEM = EventSchema(), BatchItemSchema()
_OF_A_SCHEDULE = ScheduleEventSchema()
_BARE = {"type", "payload"}
_MOST_NAME_CHARACTERS = 100
_MOST_SHOWN_CHARACTERS = 200
_PACKED_BYTES = 1_024
"""From this size of a body on its payload is packed."""


class Intake:
    """Makes documents of bodies. Every method raises `InvalidEvent` with all that doesn't fit."""

    def __init__(self, catalog: Catalog, clock: ServerClock) -> None:
        self._catalog, self._clock = catalog, clock
        self._take_nothing = {t.name for t in catalog if not t.schema.validate({})}
        """Types whose schema takes an empty payload: it needn't be asked every time."""

    def single(
        self,
        body: Any,
        key: str | None,
        request_id: str,
        traceparent: str | None,
        size: int = 0,
    ) -> Document:
        """The document of a posted event; `key`: its idempotency key; `size`: of its JSON, in
        bytes."""
        return self._document(body, _SINGLE, key, request_id, traceparent, size=size)

    def item(self, body: Any, request_id: str, traceparent: str | None, size: int = 0) -> Document:
        """The document of one event of a batch, which may bring its own key."""
        return self._document(body, _ITEM, None, request_id, traceparent, size=size)

    def of_schedule(
        self, body: Any, request_id: str | None = None, traceparent: str | None = None
    ) -> Document:
        """The document of a schedule's event, as if it were posted now."""
        return self._document(body, _OF_A_SCHEDULE, None, request_id, traceparent, size=0)

    def _document(
        self,
        body: Any,
        schema: Schema,
        key: str | None,
        request_id: str | None,
        traceparent: str | None,
        *,
        size: int,
    ) -> Document:
        given = _loaded(schema, body)
        event_type = self._type_of(given["type"])
        if given["payload"] or event_type.name not in self._take_nothing:
            _check_payload(event_type, given["payload"])
        key = given.get("idempotency_key", key)
        event = NewEvent(
            type=event_type.name,
            payload=given["payload"] if size < _PACKED_BYTES else packed(given["payload"]),
            queue=event_type.queue,
            max_attempts=given.get("max_attempts", event_type.max_attempts),
            time_limit_ms=given.get("time_limit_ms", event_type.time_limit_ms),
            priority=given.get("priority", Priority.NORMAL.value),
            run_at=given.get("run_at"),
            delay_ms=given.get("delay_ms"),
            idempotency_key=key,
            fingerprint=None if key is None else fingerprint(body),
            request_id=request_id,
            traceparent=traceparent,
            labels=labels_of(given, POSTED),
        )
        if event.run_at is not None:
            self._check_run_at(event.run_at, event.delay_ms)
        return new_document(event, self._clock.now_ms())

    def _type_of(self, name: str) -> EventType:
        event_type = self._catalog.get(name)
        if event_type is None:
            known = [t.name for t in self._catalog] if len(name) <= _MOST_NAME_CHARACTERS else []
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            detail = f"there is no such event type{hint}"
            raise InvalidEvent(detail, [FieldError("/type", detail)])
        return event_type

    def _check_run_at(self, run_at: datetime, delay_ms: int | None) -> None:
        detail = None
        if delay_ms is not None:
            detail = "run_at and delay_ms exclude each other"
        elif run_at > self._clock.now() + timedelta(milliseconds=YEAR_MS):
            detail = "run_at is more than a year ahead"
        if detail is not None:
            raise InvalidEvent(detail, [FieldError("/run_at", detail)])


def _loaded(schema: Schema, body: Any) -> dict[str, Any]:
    if type(body) is not dict:
        raise InvalidEvent("an event is an object", [FieldError("", "Not an object.")])
    if body.keys() == _BARE and type(body["type"]) is str and type(body["payload"]) is dict:
        return body  # what most clients send; the schema would find nothing either
    try:
        return load(schema, body)
    except ValidationError as error:
        raise _invalid(field_errors(error.messages)) from None


def _check_payload(event_type: EventType, payload: dict[str, Any]) -> None:
    """The payload is stored as it was sent: the schema only says whether it fits."""
    try:
        load(event_type.schema, payload)
    except ValidationError as error:
        raise _invalid(field_errors(error.messages, "/payload")) from None


def _invalid(errors: list[FieldError]) -> InvalidEvent:
    first = errors[0]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    where = first.pointer[:_MOST_SHOWN_CHARACTERS] or "the body"
    return InvalidEvent(f"{where}: {first.detail}{more}", errors)


def fingerprint(body: dict[str, Any]) -> str:
    """The same for the same parsed JSON, whatever its spacing and order; 1 and 1.0 differ."""
    bare = {name: value for name, value in body.items() if name != "idempotency_key"}
    return hashlib.sha256(orjson.dumps(bare, option=orjson.OPT_SORT_KEYS)).hexdigest()
