"""JSON Schemas of the responses, for `/openapi.json`; tests hold real answers against them.

Every enum and every object of known members is a schema with a name: a generator calls a nameless
one after its place, and such a name may be another schema's. Numbers have a format, without which
some generators take 32 bits.
"""

from __future__ import annotations

from typing import Any

from service.job import JobStatus, Outcome, Priority
from service.labels import LABELS, SCHEDULE

JsonSchema = dict[str, Any]
ID_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
ID: JsonSchema = {
    "type": "string",
    "pattern": ID_PATTERN,
    "description": "a UUIDv7",
    "examples": ["01932f4c-7a1e-7c3d-9b52-0d6f3a8e41b7"],
}
_COUNT: JsonSchema = {"type": "integer", "format": "int64", "minimum": 0}
_POSITIVE: JsonSchema = {"type": "integer", "format": "int64", "minimum": 1}
_NUMBER: JsonSchema = {"type": "number", "format": "double", "minimum": 0}
_MOMENT: JsonSchema = {
    "type": "string",
    "format": "date-time",
    "examples": ["2030-01-31T12:00:00.000Z"],
}
_TEXT: JsonSchema = {"type": "string"}
_URI: JsonSchema = {"type": "string", "format": "uri-reference"}


def ref(name: str) -> JsonSchema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: JsonSchema) -> JsonSchema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema | {"type": [schema["type"], "null"]}


def _object(required: JsonSchema, optional: JsonSchema | None = None) -> JsonSchema:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def _list(of: str) -> JsonSchema:
    return {"type": "array", "items": ref(of)}


def _enum(*values: str) -> JsonSchema:
    return {"type": "string", "enum": [str(value) for value in values]}


_ACCEPTED: JsonSchema = {
    "id": ID,
    "type": _TEXT,
    "status": ref("EventStatus"),
    "created_at": _MOMENT,
    "links": ref("EventLinks"),
}
_MORE: JsonSchema = {
    "more": {"type": "boolean", "description": "true: its time was over, ask again"}
}
_OF_SCHEDULE: JsonSchema = {"schedule": _TEXT | {"description": SCHEDULE.description}}
_EVENTS: dict[str, JsonSchema] = {
    "EventStatus": _enum(*JobStatus),
    "Priority": _enum(*Priority),
    "EventLinks": _object({"self": _URI}),
    "Accepted": _object(_ACCEPTED, _OF_SCHEDULE),
    "FailureReason": _enum("error", "timeout", "crash", "rejected"),
    "EventError": _object({"reason": ref("FailureReason"), "message": _TEXT}),
    "AttemptOutcome": _enum(*(o for o in Outcome if o is not Outcome.UNSTARTED)),
    "AttemptError": _object({"reason": _TEXT, "message": _TEXT}),
    "Attempt": _object(
        {
            "attempt": _POSITIVE,
            "worker": _TEXT,
            "started_at": _MOMENT,
            "finished_at": _MOMENT,
            "outcome": ref("AttemptOutcome"),
            "error": _or_null(ref("AttemptError")),
        }
    ),
    "Event": _object(
        {
            "id": ID,
            "type": _TEXT,
            "status": ref("EventStatus"),
            "payload": {"type": "object", "additionalProperties": True},
            "priority": ref("Priority"),
            "attempts": _COUNT,
            "max_attempts": _POSITIVE,
            "created_at": _MOMENT,
            "updated_at": _MOMENT,
            "run_at": _or_null(_MOMENT),
            "started_at": _or_null(_MOMENT),
            "finished_at": _or_null(_MOMENT),
            "next_attempt_at": _or_null(_MOMENT),
            "result": {"description": "what the handler returned"},
            "error": _or_null(ref("EventError")),
            "history": _list("Attempt"),
        }
        | {label.name: _or_null(_TEXT) | {"description": label.description} for label in LABELS},
        {"progress": {"description": "what the handler last reported"}},
    ),
    "EventPage": _object({"events": _list("Event"), "next_cursor": _or_null(_TEXT)}),
    "Retried": _object({"matched": _COUNT, "retried": _COUNT}, _MORE),
    "Cancelled": _object({"matched": _COUNT, "cancelled": _COUNT, "asked": _COUNT}, _MORE),
}
_BATCHES: dict[str, JsonSchema] = {
    "BatchAccepted": _object(
        _ACCEPTED,
        # A constant `true` that may be missing makes openapi-python-client write a syntax error.
        {"replayed": {"type": "boolean", "description": "true: its key was known; else missing"}},
    ),
    "BatchRefused": _object({"error": ref("Problem")}),
    "BatchResult": {"oneOf": [ref("BatchAccepted"), ref("BatchRefused")]},
    "BatchResults": _object({"results": _list("BatchResult")}),
}
_SCHEDULES: dict[str, JsonSchema] = {
    "ScheduledEvent": {"type": "object", "additionalProperties": True},
    "Schedule": _object(
        {
            "name": _TEXT,
            "cron": _or_null(_TEXT),
            "timezone": _or_null(_TEXT),
            "every_seconds": _or_null(_POSITIVE),
            "event": ref("ScheduledEvent"),
            "overlap": ref("ScheduleOverlap"),
            "missed": ref("ScheduleMissed"),
            "paused": {"type": "boolean"},
            "created_at": _MOMENT,
            "updated_at": _MOMENT,
            "next_run_at": _or_null(_MOMENT),
            "last_run_at": _or_null(_MOMENT),
            "last_event_id": _or_null(_TEXT),
            "upcoming": {"type": "array", "items": _MOMENT, "maxItems": 5},
        }
    ),
    "SchedulePage": _object({"schedules": _list("Schedule"), "next_cursor": _or_null(_TEXT)}),
}
_PROBLEMS: dict[str, JsonSchema] = {
    "FieldError": _object({"pointer": _TEXT, "detail": _TEXT}),
    "Problem": _object(
        {
            "type": _URI,
            "title": _TEXT,
            "status": {"type": "integer", "format": "int64"},
            "detail": _TEXT,
            "request_id": _TEXT,
        },
        {"errors": _list("FieldError")},
    ),
}
_HEALTH: dict[str, JsonSchema] = {
    "SystemStatus": _enum("ok", "degraded", "down"),
    "HealthStatus": _object({"status": ref("SystemStatus")}),
    "CheckStatus": _enum("ok", "down"),
    "HealthCheck": _object(
        {"status": ref("CheckStatus"), "latency_ms": _NUMBER}, {"detail": _TEXT}
    ),
    "Worker": _object(
        {
            "id": _TEXT,
            "host": _or_null(_TEXT),
            "pid": _or_null({"type": "integer", "format": "int64"}),
            "last_heartbeat_seconds_ago": {"type": "number", "format": "double"},
            "processing": _COUNT,
        }
    ),
    "WorkersStatus": _enum("ok", "down", "unknown"),
    "WorkersCheck": _object(
        {"status": ref("WorkersStatus"), "alive": _or_null(_COUNT), "workers": _list("Worker")}
    ),
    "HealthChecks": _object(
        {
            "api": ref("HealthCheck"),
            "redis": ref("HealthCheck"),
            "mongodb": ref("HealthCheck"),
            "workers": ref("WorkersCheck"),
        }
    ),
    "Health": _object({"status": ref("SystemStatus"), "checks": ref("HealthChecks")}),
}
_METRICS: dict[str, JsonSchema] = {
    "QueueDepth": {"type": "object", "additionalProperties": _COUNT},
    "Metrics": _object(
        dict.fromkeys(("received", "completed", "failed", "retried", "cancelled"), _or_null(_COUNT))
        | {
            "queue_depth": _or_null(ref("QueueDepth")),
            "processing": _or_null(_COUNT),
            "scheduled": _or_null(_COUNT),
            "oldest_pending_seconds": _or_null(_NUMBER),
            "workers_alive": _or_null(_COUNT),
            "sweep_age_seconds": _or_null(_NUMBER),
            "schedules_late_seconds": _or_null(_NUMBER),
            "up": {"type": "object", "additionalProperties": {"type": "boolean"}},
        }
    ),
}
_DESCRIPTION: JsonSchema = {"type": "object", "additionalProperties": True}

RESPONSE_SCHEMAS: dict[str, JsonSchema] = (
    _EVENTS | _BATCHES | _SCHEDULES | _PROBLEMS | _HEALTH | _METRICS | {"Description": _DESCRIPTION}
)
