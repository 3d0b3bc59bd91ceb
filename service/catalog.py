"""Event types: what a client may post, and the function that handles it.

    @event_type("email", schema=EmailSchema, max_attempts=8, queue="mail")
    async def send_email(payload, context):
        ...

A handler takes the payload (as it was posted; its schema only judges it) and a `Context`; it
returns a JSON value, raises to fail, raises `Reject` for a failure that no retry mends. An
`async def` handler runs on its process's event loop and holds no thread while it waits.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from marshmallow import Schema

from service.backoff import Backoff
from service.errors import CatalogError
from service.job import LONGEST_WAIT_MS

MAX_ATTEMPTS = 100
MIN_TIME_LIMIT_MS, MAX_TIME_LIMIT_MS = 100, 86_400_000
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,99}")
_QUEUE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")


class Context(Protocol):
    """What a handler knows of its run."""

    @property
    def id(self) -> str:
        """The event's id: the same for every attempt, so the key for idempotent effects."""

    @property
    def attempt(self) -> int:
        """1 for the first."""

    @property
    def request_id(self) -> str | None:
        """Of the request that posted the event."""

    @property
    def traceparent(self) -> str | None:
        """W3C trace context of that request."""

    def is_cancelled(self) -> bool:
        """Whether a client asked to cancel: stop soon, and raise `Cancelled`."""

    def remaining_ms(self) -> int:
        """Milliseconds until the time limit."""

    def now(self) -> datetime:
        """The time (UTC) by MongoDB's clock, as all of an event's times are: the host's own may be
        off."""

    def progress(self, value: Any) -> None:
        """Puts a JSON value into the job's `progress`, for people who look at it while it runs.
        Raises `ValueError` for what is no JSON or has more than 64 KiB."""


Handler = Callable[[Any, Context], Any | Awaitable[Any]]


class AnyPayload(Schema):
    """The schema of a type that declares none: any object."""

    class Meta:
        unknown = "include"


@dataclass(frozen=True, slots=True)
class EventType:
    """One entry of the catalog."""

    name: str
    handler: Handler
    schema: Schema
    max_attempts: int = 5
    backoff: Backoff = field(default_factory=Backoff)
    time_limit_ms: int = 60_000
    queue: str = "default"

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.handler)


class Catalog:
    """Every event type, by name."""

    def __init__(self) -> None:
        self._types: dict[str, EventType] = {}

    def event_type(
        self, name: str, *, schema: type[Schema] | None = None, **options: Any
    ) -> Callable[[Handler], Handler]:
        """Declares the decorated function as the handler of the event type `name`.

        Options: `max_attempts` (1 to 100), `backoff` (a `Backoff`), `time_limit_ms` (100 to
        86,400,000), `queue` (letters, digits, `_`, `-`). Raises `CatalogError`.
        """

        def declare(handler: Handler) -> Handler:
            self.add(_checked(name, handler, (schema or AnyPayload)(), options))
            return handler

        return declare

    def add(self, event_type: EventType) -> None:
        """Raises `CatalogError` where the name is taken by another function."""
        known = self._types.get(event_type.name)
        if known is not None and known.handler is not event_type.handler:
            raise CatalogError(f"event type {event_type.name!r} is declared twice")
        self._types[event_type.name] = event_type

    def get(self, name: str) -> EventType | None:
        return self._types.get(name)

    def __iter__(self) -> Iterator[EventType]:
        return iter(self._types.values())

    def __len__(self) -> int:
        return len(self._types)

    @property
    def queues(self) -> list[str]:
        return sorted({t.queue for t in self})

    @property
    def types_by_queue(self) -> dict[str, list[str]]:
        """The names of the types, by queue."""
        return {queue: [t.name for t in self if t.queue == queue] for queue in self.queues}


def _checked(name: str, handler: Handler, schema: Schema, options: dict[str, Any]) -> EventType:
    allowed = {"max_attempts", "backoff", "time_limit_ms", "queue"}
    for option in options.keys() - allowed:
        near = difflib.get_close_matches(option, allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CatalogError(f"event type {name!r} has no option {option!r}{hint}")
    event_type = EventType(name, handler, schema, **options)
    rules = {
        "name": _is_word(name, _NAME),
        "max_attempts": _is_whole(event_type.max_attempts, 1, MAX_ATTEMPTS),
        "backoff": isinstance(event_type.backoff, Backoff),
        "time_limit_ms": _is_whole(event_type.time_limit_ms, MIN_TIME_LIMIT_MS, MAX_TIME_LIMIT_MS),
        "queue": _is_word(event_type.queue, _QUEUE),
    }
    for what, holds in rules.items():
        if not holds:
            raise CatalogError(
                f"event type {name!r}: {what} {getattr(event_type, what)!r} is not allowed"
            )
    _check_backoff(name, event_type.backoff)
    return event_type


def _check_backoff(name: str, backoff: Backoff) -> None:
    """What doesn't fit would only be seen when an attempt has failed."""
    for what, most, shown in (
        ("cap_ms", LONGEST_WAIT_MS, LONGEST_WAIT_MS),
        ("first_ms", backoff.cap_ms, f"cap_ms ({backoff.cap_ms})"),
    ):
        if not _is_whole(value := getattr(backoff, what), 0, most):
            raise CatalogError(
                f"event type {name!r}: backoff's {what} {value!r} is not a whole number "
                f"from 0 to {shown}"
            )


def _is_word(value: object, allowed: re.Pattern[str]) -> bool:
    """Whether it can name something; `dead_letter` names the queue and actor of that purpose."""
    return isinstance(value, str) and value != "dead_letter" and bool(allowed.fullmatch(value))


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


catalog = Catalog()
event_type = catalog.event_type
