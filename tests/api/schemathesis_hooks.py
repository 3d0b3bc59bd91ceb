"""What JSON Schema can't say of this API, for schemathesis: loaded by SCHEMATHESIS_HOOKS.

Only cases that are valid by the description are changed, and only so that they are valid indeed.
"""

from __future__ import annotations

import uuid
from typing import Any

import schemathesis

MAX_INTEGER = 2**63 - 1
INTEGERS = {
    *("delay_ms", "max_attempts", "time_limit_ms"),
    *("duration_ms", "cpu_ms", "fail_times"),
}
ALLOWED_URL = "https://hooks.example.com/"


@schemathesis.hook
def filter_body(context: Any, body: Any) -> bool:
    """Integers beyond 64 bit can't be stored."""
    return _is_storable(body)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    if "Prefer" in (case.headers or {}):
        case.headers["Prefer"] = "wait=0"  # a wait for what nobody processes is just long
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if key := (case.headers or {}).get("Idempotency-Key"):  # a key belongs to one body
        case.headers["Idempotency-Key"] = f"{key[:200]}{uuid.uuid4().hex}"
    for which in (case.query, case.body):  # a group belongs to a type
        if isinstance(which, dict) and "type" not in which:
            which.pop("group", None)
    if case.query:
        case.query.pop("cursor", None)  # it is what an answer gave, and nothing else
    if case.path.startswith("/schedules") and isinstance(case.body, dict):
        _make_tick(case.body)
    for event in _events(case.body):
        _make_acceptable(event)


def _make_tick(schedule: dict[str, Any]) -> None:
    """A text is no cron expression or time zone, and `every_seconds` excludes both."""
    if schedule.pop("every_seconds", None) is not None:
        schedule |= {"every_seconds": 60}
        schedule.pop("timezone", None)
        schedule.pop("cron", None)
    else:
        schedule |= {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}


def _make_acceptable(event: dict[str, Any]) -> None:
    """Integers have no fraction, times lie within a year, and URLs at an allowed host."""
    for values in (event, event.get("payload")):
        if isinstance(values, dict):
            for name in values.keys() & INTEGERS:
                if isinstance(values[name], float) and values[name].is_integer():
                    values[name] = int(values[name])
    if isinstance(event.get("run_at"), str):
        event["run_at"] = "2020-01-01T00:00:00Z"
    payload = event.get("payload")
    if event.get("type") == "webhook" and isinstance(payload, dict):
        payload["url"] = ALLOWED_URL
        payload.pop("headers", None)


def _events(body: Any) -> list[dict[str, Any]]:
    if not isinstance(body, dict):
        return []
    if isinstance(body.get("event"), dict):
        return [body["event"]]
    many = body.get("events")
    return [e for e in many if isinstance(e, dict)] if isinstance(many, list) else [body]


def _is_storable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_storable, value.values()))
    if isinstance(value, list):
        return all(map(_is_storable, value))
    return not isinstance(value, int) or -MAX_INTEGER - 1 <= value <= MAX_INTEGER
