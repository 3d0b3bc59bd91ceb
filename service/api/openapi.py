"""`/openapi.json`: made from the marshmallow schemas that check requests and the operations' table.

Only who asks for it pays for it: nothing else imports this module.
"""

from __future__ import annotations

from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin, resolver
from marshmallow import RAISE, Schema, fields

from service.api.bulk_changes import CancelManySchema, RetryManySchema
from service.api.openapi_operations import OPERATIONS, PROBLEMS, Operation
from service.api.openapi_responses import ID, RESPONSE_SCHEMAS, JsonSchema, ref
from service.api.queries import DEFAULT_LIMIT, MAX_LIMIT
from service.api.requests import MAX_WAIT_SECONDS
from service.api.schemas import (
    KEY_PATTERN,
    BatchItemSchema,
    EventSchema,
    JsonObject,
    Moment,
    ScheduleEventSchema,
    ScheduleSchema,
)
from service.catalog import Catalog, EventType
from service.labels import LABELS, SCHEDULE
from service.runtime.identity import VERSION

_TEXT: JsonSchema = {"type": "string"}
_MOMENT: JsonSchema = {"type": "string", "format": "date-time"}
_PARAMETERS: dict[str, tuple[str, JsonSchema, str]] = {
    "event_id": ("path", ID, "the event's id"),
    "status": ("query", ref("EventStatus"), ""),
    "type": ("query", {"type": "string", "minLength": 1, "maxLength": 100}, ""),
    "name": ("path", {"type": "string", "pattern": SCHEDULE.pattern}, "the schedule's name"),
    **{
        label.name: (
            "query",
            {"type": "string", "pattern": label.pattern},
            label.description + ("; only with `type`" if label.of_type else ""),
        )
        for label in LABELS
    },
    "created_after": ("query", _MOMENT, "inclusive"),
    "created_before": ("query", _MOMENT, "exclusive"),
    "limit": (
        "query",
        {
            "type": "integer",
            "format": "int64",
            "minimum": 1,
            "maximum": MAX_LIMIT,
            "default": DEFAULT_LIMIT,
        },
        "how many on a page",
    ),
    "cursor": ("query", _TEXT, "`next_cursor` of the page before"),
    "Idempotency-Key": (
        "header",
        {"type": "string", "pattern": KEY_PATTERN},
        "the same key and body give the same event again",
    ),
    "If-None-Match": ("header", _TEXT, "the `ETag` that the client has"),
    "Prefer": ("header", _TEXT, f"`wait=N`: up to {MAX_WAIT_SECONDS} s for a final status"),
    "X-Request-Id": ("header", _TEXT, "up to 128 visible characters; one is made otherwise"),
    "traceparent": ("header", _TEXT, "W3C trace context, handed to the handler"),
}
_HEADERS: dict[str, tuple[JsonSchema, str]] = {
    "X-Request-Id": (_TEXT, "the request's id, given or made"),
    "Retry-After": (_TEXT, "seconds after which trying again, or looking again, makes sense"),
    "Location": ({"type": "string", "format": "uri-reference"}, "where the event is"),
    "Idempotency-Replayed": (_TEXT, "`true` where the key was known"),
    "ETag": (_TEXT, "changes with the event"),
    "Link": (_TEXT, '`rel="next"`: the next page'),
    "Preference-Applied": (_TEXT, "`wait=N` where it was"),
    "Allow": (_TEXT, "the methods of this path"),
}
_RESPONSE_HEADERS = {
    "Accepted": ("Location", "Retry-After", "Idempotency-Replayed"),
    "Event": ("ETag", "Retry-After", "Preference-Applied"),
    "EventPage": ("Link",),
    "Schedule": ("ETag",),
    "SchedulePage": ("Link",),
    "BatchResults": ("Retry-After",),
}
_STATUS_HEADERS = {405: ("Allow",), 503: ("Retry-After",)}


def description(catalog: Catalog, max_batch_events: int) -> dict[str, Any]:
    """The whole document."""
    plugin = MarshmallowPlugin(_name_of_part)
    spec = APISpec(
        title="PulseQueue",
        version=VERSION,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": "Accepts events, processes them at least once, tells how it went."},
    )
    plugin.map_to_openapi_type(Moment, "string", "date-time")  # type: ignore[no-untyped-call]
    plugin.map_to_openapi_type(JsonObject, "object", None)  # type: ignore[no-untyped-call]
    plugin.map_to_openapi_type(fields.Integer, "integer", "int64")  # type: ignore[no-untyped-call]
    plugin.map_to_openapi_type(fields.Float, "number", "double")  # type: ignore[no-untyped-call]
    for name, schema in (RESPONSE_SCHEMAS | _bodies(plugin, catalog, max_batch_events)).items():
        spec.components.schema(name, schema)
    for operation in OPERATIONS:
        spec.path(operation.path, operations={operation.method: _operation(operation)})
    return spec.to_dict()


# bodies


def _bodies(
    plugin: MarshmallowPlugin, catalog: Catalog, max_batch_events: int
) -> dict[str, JsonSchema]:
    """The schemas of what clients send, each event type's payload included."""
    bodies: dict[str, JsonSchema] = {}
    for event_type in catalog:
        bodies |= _bodies_of(plugin, event_type)
    names = [event_type.name for event_type in catalog]
    bodies["NewEvent"] = _one_of("NewEvent", names)
    bodies["BatchItem"] = _one_of("BatchItem", names)
    bodies["NewEvents"] = _batch(max_batch_events)
    bodies |= _many(plugin, RetryManySchema(), "RetryMany", "RetryableStatus")
    bodies |= _many(plugin, CancelManySchema(), "CancelMany", "CancellableStatus")
    bodies["ScheduleEvent"] = _one_of("ScheduleEvent", names)
    bodies |= _schedule(plugin)
    return bodies


def _bodies_of(plugin: MarshmallowPlugin, event_type: EventType) -> dict[str, JsonSchema]:
    """The payload of one type, and the type's events: alone, and in a batch."""
    payload = f"Payload.{event_type.name}"
    bodies = {payload: _json_schema(plugin, event_type.schema)}
    doc = " ".join((event_type.handler.__doc__ or "").strip().partition("\n\n")[0].split())
    kinds = {"NewEvent": EventSchema(), "BatchItem": BatchItemSchema()}
    for kind, schema in (kinds | {"ScheduleEvent": ScheduleEventSchema()}).items():
        event = _json_schema(plugin, schema)
        event["properties"] |= {
            "type": {"type": "string", "const": event_type.name},
            "payload": ref(payload),
            "priority": _named(event, "priority", "Priority"),
        }
        if "run_at" in event["properties"]:
            event["not"] = {"required": ["run_at", "delay_ms"]}
        bodies[f"{kind}.{event_type.name}"] = event | ({"description": doc} if doc else {})
    return bodies


def _json_schema(plugin: MarshmallowPlugin, schema: Schema) -> JsonSchema:
    if plugin.converter is None:
        raise RuntimeError("the plugin belongs to no document")
    made: JsonSchema = plugin.converter.schema2jsonschema(schema)  # type: ignore[no-untyped-call]
    made["additionalProperties"] = schema.unknown != RAISE
    return made


def _name_of_part(schema: type[Schema]) -> str:
    """Of a schema that another one nests: a name that none of ours can be."""
    return f"Part.{resolver(schema)}"


def _named(body: JsonSchema, member: str, name: str) -> JsonSchema:
    """In the place of the body's own enum: the one with this name."""
    described: JsonSchema = body["properties"][member]
    return ref(name) | {k: v for k, v in described.items() if k not in {"type", "enum"}}


def _many(
    plugin: MarshmallowPlugin, schema: Schema, name: str, name_of_status: str
) -> dict[str, JsonSchema]:
    """The body of a change by filter, and its enum. It needs a condition, and `dry_run` is none.
    (To say so by `anyOf` makes generators take it for a union, and give up its members.)"""
    body = _json_schema(plugin, schema)
    status = {"type": "string", "enum": body["properties"]["status"]["enum"]}
    body["properties"]["status"] = _named(body, "status", name_of_status)
    only_dry_run = {"required": ["dry_run"], "maxProperties": 1}
    needed = {label.name: ["type"] for label in LABELS if label.of_type}
    rules = {"minProperties": 1, "not": only_dry_run, "dependentRequired": needed}
    return {name: body | rules, name_of_status: status}


def _schedule(plugin: MarshmallowPlugin) -> dict[str, JsonSchema]:
    """The body, and its enums. What excludes what is told in words: see `_many`."""
    body = _json_schema(plugin, ScheduleSchema())
    enums = {"overlap": "ScheduleOverlap", "missed": "ScheduleMissed"}
    named = {
        name: {"type": "string", "enum": body["properties"][member]["enum"]}
        for member, name in enums.items()
    }
    for member, name in enums.items():
        body["properties"][member] = _named(body, member, name)
    body["properties"]["event"] = ref("ScheduleEvent")
    return {"NewSchedule": body} | named


def _one_of(kind: str, names: list[str]) -> JsonSchema:
    refs = {name: f"#/components/schemas/{kind}.{name}" for name in names}
    return {
        "oneOf": [{"$ref": target} for target in refs.values()],
        "discriminator": {"propertyName": "type", "mapping": refs},
    }


def _batch(most: int) -> JsonSchema:
    events = {"type": "array", "minItems": 1, "maxItems": most, "items": ref("BatchItem")}
    return {
        "type": "object",
        "properties": {"events": events},
        "required": ["events"],
        "additionalProperties": False,
    }


# operations


def _operation(operation: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [_parameter(name) for name in operation.parameters],
        "responses": {
            str(status): _response(operation, status, *response)
            for status, response in operation.responses.items()
        }
        | {str(status): _problem(status) for status in operation.problems},
    }
    if operation.body is not None:
        made["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": ref(operation.body)} | _example(operation)},
        }
    return made


def _parameter(name: str) -> dict[str, Any]:
    place, schema, text = _PARAMETERS[name]
    made: dict[str, Any] = {"name": name, "in": place, "schema": schema}
    if place == "path":
        made["required"] = True
    return made | ({"description": text} if text else {})


def _example(operation: Operation) -> dict[str, Any]:
    event = {"type": "simulate", "payload": {"duration_ms": 300, "result": {"hello": "world"}}}
    examples = {
        "NewEvent": event,
        "NewEvents": {"events": [event, event | {"idempotency_key": "order-4711"}]},
        "RetryMany": {"status": "failed", "dry_run": True},
        "CancelMany": {"status": "pending", "type": "simulate", "dry_run": True},
        "NewSchedule": {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "event": event},
    }
    return {"example": examples[operation.body or ""]}


def _response(operation: Operation, status: int, schema: str, text: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "description": text,
        "headers": _headers(schema, *_STATUS_HEADERS.get(status, ())),
    }
    if schema == "Metrics":
        made["content"] = {"text/plain": {"schema": _TEXT}}
    if schema:
        made.setdefault("content", {})["application/json"] = {"schema": ref(schema)}
    if operation.then and schema:
        given = {"event_id": "$response.body#/id"}
        made["links"] = {i: {"operationId": i, "parameters": given} for i in operation.then}
    return made


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": PROBLEMS[status],
        "headers": _headers(*_STATUS_HEADERS.get(status, ())),
        "content": {"application/problem+json": {"schema": ref("Problem")}},
    }


def _headers(*schemas_or_names: str) -> dict[str, Any]:
    names = ["X-Request-Id"]
    for name in schemas_or_names:
        names += _RESPONSE_HEADERS.get(name, (name,) if name in _HEADERS else ())
    return {name: {"schema": _HEADERS[name][0], "description": _HEADERS[name][1]} for name in names}
