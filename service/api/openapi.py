"""`/openapi.json`: made from the marshmallow schemas that check requests, and one table of operations.

Only who asks for it pays for it: nothing else imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import RAISE, Schema

from service.api.changes import RetryManySchema
from service.api.openapi_answers import ANSWERS, ID, JsonSchema, ref
from service.api.queries import DEFAULT_LIMIT, MAX_LIMIT
from service.api.requests import MAX_WAIT_SECONDS
from service.api.schemas import KEY_PATTERN, BatchItemSchema, EventSchema, JsonObject, Moment
from service.catalog import Catalog
from service.identity import VERSION
from service.job import JobStatus
from service.settings import Settings

_PROBLEMS = {
    400: "bad JSON, or a parameter or header that isn't allowed",
    404: "no such event, or nothing at this path",
    405: "see `Allow`",
    406: "the client takes no media type that this answers in",
    408: "the body did not arrive in time",
    409: "the event's status doesn't allow this",
    411: "a body is needed, and its length",
    413: "the body is too large",
    414: "the URL is too long",
    415: "the body is no JSON by its Content-Type, or compressed",
    422: "JSON that doesn't fit",
    431: "the headers are too large",
    500: "a fault of ours; the log has it under `request_id`",
    503: "MongoDB is unavailable, or too much is waiting",
}
_ALWAYS = (400, 404, 405, 406, 408, 413, 414, 431, 500, 503)
_BODY = (411, 415, 422)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `answers`: by status, a schema's name and what it means."""

    method: str
    path: str
    summary: str
    answers: dict[int, tuple[str, str]]
    parameters: tuple[str, ...] = ()
    body: str | None = None
    body_needed: bool = True
    problems: tuple[int, ...] = ()
    links: dict[str, Any] = field(default_factory=dict)


def _links(*names: str) -> dict[str, Any]:
    """What can be done next with the event that an answer holds."""
    parameters = {"event_id": "$response.body#/id"}
    return {name: {"operationId": name, "parameters": parameters} for name in names}


OPERATIONS = (
    Operation(
        "post",
        "/events",
        "Post an event",
        {202: ("Accepted", "stored; it will be processed")},
        ("Idempotency-Key", "traceparent"),
        body="NewEvent",
        problems=_BODY,
        links=_links("getEvent", "cancelEvent", "retryEvent"),
    ),
    Operation(
        "get",
        "/events",
        "List events, newest first",
        {200: ("EventPage", "a page; `next_cursor` is null on the last one")},
        ("status", "type", "created_after", "created_before", "limit", "cursor"),
    ),
    Operation(
        "post",
        "/events/batch",
        "Post many events",
        {
            202: ("BatchResults", "all were stored"),
            207: ("BatchResults", "some were not: see the results, which come in order"),
        },
        ("traceparent",),
        body="NewEvents",
        problems=_BODY,
    ),
    Operation(
        "post",
        "/events/retry",
        "Retry all events that match",
        {200: ("Retried", "how many matched, and how many were retried")},
        ("retry_status", "type", "created_after", "created_before", "dry_run"),
        body="RetryMany",
        body_needed=False,
        problems=_BODY,
    ),
    Operation(
        "get",
        "/events/{event_id}",
        "Look at an event",
        {200: ("Event", "the event as it is now"), 304: ("", "as the client has it")},
        ("event_id", "If-None-Match", "Prefer"),
        links=_links("cancelEvent", "retryEvent"),
    ),
    Operation(
        "post",
        "/events/{event_id}/cancel",
        "Cancel an event",
        {
            200: ("Event", "it is cancelled"),
            202: ("Event", "it is being processed, and its handler is asked to stop"),
        },
        ("event_id",),
        problems=(409, 411, 415, 422),
    ),
    Operation(
        "post",
        "/events/{event_id}/retry",
        "Retry a failed or cancelled event",
        {202: ("Event", "it is pending again, with a fresh budget")},
        ("event_id",),
        problems=(409, 411, 415, 422),
    ),
    Operation("get", "/health", "Tell how everything is", {200: ("Health", "events are accepted")}),
    Operation("get", "/health/live", "Tell that this runs", {200: ("HealthStatus", "it runs")}),
    Operation(
        "get",
        "/health/ready",
        "Tell whether events are accepted",
        {200: ("HealthStatus", "they are")},
    ),
    Operation("get", "/metrics", "Metrics", {200: ("Metrics", "also as Prometheus text")}),
    Operation("get", "/openapi.json", "This description", {200: ("", "OpenAPI 3.1")}),
)
_IDS = {
    "/events": {"post": "postEvent", "get": "listEvents"},
    "/events/batch": {"post": "postEvents"},
    "/events/retry": {"post": "retryEvents"},
    "/events/{event_id}": {"get": "getEvent"},
    "/events/{event_id}/cancel": {"post": "cancelEvent"},
    "/events/{event_id}/retry": {"post": "retryEvent"},
    "/health": {"get": "getHealth"},
    "/health/live": {"get": "getLiveness"},
    "/health/ready": {"get": "getReadiness"},
    "/metrics": {"get": "getMetrics"},
    "/openapi.json": {"get": "getDescription"},
}
