"""JSON Schemas of the answers, for `/openapi.json`; tests hold real answers against them."""

from __future__ import annotations

from typing import Any

from service.job import JobStatus, Outcome, Priority

JsonSchema = dict[str, Any]
ID_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
ID: JsonSchema = {
    "type": "string",
    "pattern": ID_PATTERN,
    "description": "a UUIDv7",
    "examples": ["01932f4c-7a1e-7c3d-9b52-0d6f3a8e41b7"],
}
_COUNT: JsonSchema = {"type": "integer", "minimum": 0}
_MOMENT: JsonSchema = {
    "type": "string",
    "format": "date-time",
    "examples": ["2030-01-31T12:00:00.000Z"],
}
_LATENCY: JsonSchema = {"type": "number", "minimum": 0}


def _or_null(schema: JsonSchema) -> JsonSchema:
    return schema | {"type": [schema["type"], "null"]}


def _object(required: JsonSchema, optional: JsonSchema | None = None) -> JsonSchema:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def ref(name: str) -> JsonSchema:
    return {"$ref": f"#/components/schemas/{name}"}


def _enum(values: Any) -> JsonSchema:
    return {"type": "string", "enum": [str(value) for value in values]}


_LINKS = _object({"self": {"type": "string", "format": "uri-reference"}})
_ACCEPTED: JsonSchema = {
    "id": ID,
    "type": {"type": "string"},
    "status": _enum(JobStatus),
    "created_at": _MOMENT,
    "links": _LINKS,
}
_ATTEMPT_ERROR: JsonSchema = {
    "type": ["object", "null"],
    "properties": {"reason": {"type": "string"}, "message": {"type": "string"}},
    "required": ["reason", "message"],
}
_JOB_ERROR: JsonSchema = _ATTEMPT_ERROR | {
    "properties": {
        "reason": _enum(["error", "timeout", "crash", "rejected"]),
        "message": {"type": "string"},
    }
}
_ATTEMPT = _object(
    {
        "attempt": {"type": "integer", "minimum": 1},
        "worker": {"type": "string"},
        "started_at": _MOMENT,
        "finished_at": _MOMENT,
        "outcome": _enum(o for o in Outcome if o is not Outcome.UNSTARTED),
        "error": _ATTEMPT_ERROR,
    }
)
_EVENT = _object(
    {
        "id": ID,
        "type": {"type": "string"},
        "status": _enum(JobStatus),
        "payload": {"type": "object"},
        "priority": _enum(Priority),
        "attempts": _COUNT,
        "max_attempts": {"type": "integer", "minimum": 1},
        "created_at": _MOMENT,
        "updated_at": _MOMENT,
        "run_at": _or_null(_MOMENT),
        "started_at": _or_null(_MOMENT),
        "finished_at": _or_null(_MOMENT),
        "next_attempt_at": _or_null(_MOMENT),
        "result": {"description": "what the handler returned"},
        "error": _JOB_ERROR,
        "history": {"type": "array", "items": _ATTEMPT},
    },
    {"progress": {"description": "what the handler last reported"}},
)
_PROBLEM = _object(
    {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
    },
    {
        "errors": {
            "type": "array",
            "items": _object({"pointer": {"type": "string"}, "detail": {"type": "string"}}),
        }
    },
)
_CHECK = _object(
    {"status": _enum(["ok", "down"]), "latency_ms": _LATENCY}, {"detail": {"type": "string"}}
)
_WORKER = _object(
    {
        "id": {"type": "string"},
        "host": {"type": ["string", "null"]},
        "pid": {"type": ["integer", "null"]},
        "last_heartbeat_seconds_ago": {"type": "number"},
        "processing": _COUNT,
    }
)
_HEALTH_STATUS = _enum(["ok", "degraded", "down"])
_HEALTH = _object(
    {
        "status": _HEALTH_STATUS,
        "checks": _object(
            {
                "api": _CHECK,
                "redis": _CHECK,
                "mongodb": _CHECK,
                "workers": _object(
                    {
                        "status": _enum(["ok", "down", "unknown"]),
                        "alive": _or_null(_COUNT),
                        "workers": {"type": "array", "items": _WORKER},
                    }
                ),
            }
        ),
    }
)
_METRICS = _object(
    {name: _or_null(_COUNT) for name in ("received", "completed", "failed", "retried", "cancelled")}
    | {
        "queue_depth": {"type": ["object", "null"], "additionalProperties": _COUNT},
        "processing": _or_null(_COUNT),
        "scheduled": _or_null(_COUNT),
        "oldest_pending_seconds": {"type": ["number", "null"], "minimum": 0},
        "workers_alive": _or_null(_COUNT),
        "sweep_age_seconds": {"type": ["number", "null"], "minimum": 0},
        "up": {"type": "object", "additionalProperties": {"type": "boolean"}},
    }
)

ANSWERS: dict[str, JsonSchema] = {
    "Problem": _PROBLEM,
    "Accepted": _object(_ACCEPTED),
    "Event": _EVENT,
    "EventPage": _object(
        {
            "events": {"type": "array", "items": ref("Event")},
            "next_cursor": {"type": ["string", "null"]},
        }
    ),
    "BatchResults": _object(
        {
            "results": {
                "type": "array",
                "items": {
                    "anyOf": [
                        _object(_ACCEPTED, {"replayed": {"const": True}}),
                        _object({"error": ref("Problem")}),
                    ]
                },
            }
        }
    ),
    "Retried": _object(
        {"matched": _COUNT, "retried": _COUNT},
        {"more": {"const": True, "description": "its time was over: ask again for the rest"}},
    ),
    "Health": _HEALTH,
    "HealthStatus": _object({"status": _HEALTH_STATUS}),
    "Metrics": _METRICS,
}
