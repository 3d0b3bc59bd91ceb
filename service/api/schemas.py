"""What clients may send, as marshmallow schemas; `/openapi.json` is made from the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from service.api import times
from service.api.pointers import cut, escaped
from service.catalog import MAX_ATTEMPTS, MAX_TIME_LIMIT_MS, MIN_TIME_LIMIT_MS
from service.errors import FieldError
from service.job import Priority
from service.labels import LABELS, Label

YEAR_MS = 365 * 86_400_000
KEY_PATTERN = r"^[!-~]{1,255}$"
_MOST_UNKNOWN = 20


class Moment(fields.Field[Any]):
    """An RFC 3339 date and time with an offset; loads to an aware UTC datetime."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Any:
        if not isinstance(value, str):
            raise ValidationError("Not a text.")
        try:
            return times.parsed(value)
        except ValueError as error:
            raise ValidationError(f"{error}.".capitalize()) from None


class Flag(fields.Boolean):
    """true or false, and nothing that could be taken for one of them."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> bool:
        if type(value) is not bool:
            raise self.make_error("invalid", input=value)
        return value


class JsonObject(fields.Field[Any]):
    """A JSON object of any content, taken as it is."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError("Not an object.")
        return value


class Matches(validate.Regexp):
    """All of a text, where the library's own would take a line break behind it."""

    def __call__(self, value: Any) -> Any:
        if self.regex.fullmatch(value) is None:
            raise ValidationError(self._format_error(value))
        return value


def label_field(label: Label) -> fields.String:
    return fields.String(
        validate=Matches(label.pattern, error=f"Not {label.rule}."),
        metadata={"description": label.description},
    )


class EventSchema(Schema):
    """The body of `POST /events`."""

    class Meta:
        include: ClassVar = {label.name: label_field(label) for label in LABELS if label.posted}

    type = fields.String(
        required=True,
        validate=validate.Length(1, 100),
        metadata={"description": "the event type", "example": "simulate"},
    )
    payload = JsonObject(
        required=True, metadata={"description": "as the schema of its type says", "example": {}}
    )
    run_at = Moment(
        metadata={
            "description": "when it may start at the earliest, up to a year ahead; past: now",
            "example": "2030-01-31T12:00:00Z",
        }
    )
    delay_ms = fields.Integer(
        strict=True,
        validate=validate.Range(0, YEAR_MS),
        metadata={"description": "how long to wait before it may start; not with `run_at`"},
    )
    priority = fields.String(
        validate=validate.OneOf([str(p) for p in Priority]),
        metadata={"description": "default: normal"},
    )
    max_attempts = fields.Integer(
        strict=True,
        validate=validate.Range(1, MAX_ATTEMPTS),
        metadata={"description": "how often it is tried; default: its type's"},
    )
    time_limit_ms = fields.Integer(
        strict=True,
        validate=validate.Range(MIN_TIME_LIMIT_MS, MAX_TIME_LIMIT_MS),
        metadata={"description": "how long one attempt may run; default: its type's"},
    )


class BatchItemSchema(EventSchema):
    """One event of a batch."""

    idempotency_key = fields.String(
        validate=Matches(KEY_PATTERN, error="Not 1 to 255 visible ASCII characters."),
        metadata={"description": "the same namespace as the header `Idempotency-Key`"},
    )


class ScheduleEventSchema(EventSchema):
    """What a schedule makes at each tick: when that is, its ticks say."""

    class Meta:
        exclude = ("run_at", "delay_ms")


class ScheduleSchema(Schema):
    """The body of `PUT /schedules/{name}`; its event is checked by itself."""

    cron = fields.String(
        validate=validate.Length(1, 200),
        metadata={
            "description": "minute, hour, day of the month, month, day of the week, or @hourly, "
            "@daily, @weekly, @monthly, @yearly; either this or `every_seconds`",
            "example": "0 3 * * *",
        },
    )
    timezone = fields.String(
        validate=validate.Length(1, 100),
        metadata={
            "description": "IANA name, for `cron` only; default: UTC",
            "example": "Europe/Berlin",
        },
    )
    every_seconds = fields.Integer(
        strict=True,
        validate=validate.Range(1, 31_536_000),
        metadata={"description": "ticks at multiples of it since 1970"},
    )
    event = JsonObject(required=True)
    overlap = fields.String(
        validate=validate.OneOf(["allow", "skip"]),
        metadata={"description": "skip: no event while the last one is not final; default: allow"},
    )
    missed = fields.String(
        validate=validate.OneOf(["one", "none"]),
        metadata={"description": "how many events for ticks while nothing ran; default: one"},
    )
    paused = Flag(metadata={"description": "true: it doesn't tick; default: false"})


def load(schema: Schema, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the schema makes of it. Raises `ValidationError`.

    Where very many names are unknown, only some of them are complained of, and nothing else is
    checked: marshmallow would make a message for each.
    """
    unknown_are_refused = schema.unknown == RAISE and not schema._hooks["pre_load"]
    if unknown_are_refused and len(given) > len(schema.load_fields) + _MOST_UNKNOWN:
        known = {field.data_key or name for name, field in schema.load_fields.items()}
        unknown = islice((name for name in given if name not in known), _MOST_UNKNOWN)
        raise ValidationError({name: [schema.error_messages["unknown"]] for name in unknown})
    loaded: dict[str, Any] = schema.load(given)
    return loaded


def field_errors(messages: Any, pointer: str = "") -> list[FieldError]:
    """marshmallow's messages as pointers and sentences."""
    return cut(_flat(messages, pointer))


def _flat(messages: Any, pointer: str) -> Iterator[FieldError]:
    if isinstance(messages, Mapping):
        for key, inner in messages.items():
            within = pointer if key == "_schema" else f"{pointer}/{escaped(str(key))}"
            yield from _flat(inner, within)
    elif isinstance(messages, list):
        for message in messages:
            yield from _flat(message, pointer)
    else:
        yield FieldError(pointer, str(messages))
