"""The API's operations in one table, of which `/openapi.json` is made."""

from __future__ import annotations

from dataclasses import dataclass

from service.labels import NAMES

PROBLEMS = {
    400: "bad JSON, or a parameter or header that isn't allowed",
    404: "no such event, or nothing at this path",
    405: "see `Allow`",
    406: "the client takes no media type that this answers in",
    408: "the body did not arrive in time",
    409: "the event's status doesn't allow this, or there are as many schedules as there may be",
    411: "a body is needed, and its length",
    413: "the body is too large",
    414: "the URL is too long",
    415: "the body is no JSON by its Content-Type, or compressed",
    422: "JSON that doesn't fit",
    431: "the headers are too large",
    500: "a fault of ours; the log has it under `request_id`",
    503: "MongoDB is unavailable, too much is waiting, or this takes too long",
}
_ALWAYS = (400, 404, 405, 406, 408, 413, 414, 431, 500, 503)
_BODY = (411, 415, 422)
_ID = ("event_id",)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `responses`: by status, its schema's name and what it means."""

    id: str
    method: str
    path: str
    summary: str
    responses: dict[int, tuple[str, str]]
    parameters: tuple[str, ...] = ()
    body: str | None = None
    more_problems: tuple[int, ...] = ()
    then: tuple[str, ...] = ()
    """Operations that make sense for the event that the answer holds."""

    @property
    def tag(self) -> str:
        """What it is about, after which generators name classes and folders."""
        return self.path.split("/")[1].removesuffix(".json")

    @property
    def problems(self) -> tuple[int, ...]:
        return tuple(s for s in (*_ALWAYS, *self.more_problems) if s not in self.responses)


_HEALTH_STATUS = {200: ("HealthStatus", "yes"), 503: ("HealthStatus", "no")}
OPERATIONS = (
    Operation(
        id="postEvent",
        method="post",
        path="/events",
        summary="Post an event",
        responses={202: ("Accepted", "stored; it will be processed")},
        parameters=("Idempotency-Key", "X-Request-Id", "traceparent"),
        body="NewEvent",
        more_problems=_BODY,
        then=("getEvent", "cancelEvent", "retryEvent"),
    ),
    Operation(
        id="listEvents",
        method="get",
        path="/events",
        summary="List events, newest first",
        responses={200: ("EventPage", "a page; `next_cursor` is null on the last one")},
        parameters=("status", "type", *NAMES, "created_after", "created_before", "limit", "cursor"),
    ),
    Operation(
        id="postEvents",
        method="post",
        path="/events/batch",
        summary="Post many events",
        responses={
            202: ("BatchResults", "all were stored"),
            207: ("BatchResults", "some were not: see the results, which come in order"),
        },
        parameters=("X-Request-Id", "traceparent"),
        body="NewEvents",
        more_problems=_BODY,
    ),
    Operation(
        id="cancelEvents",
        method="post",
        path="/events/cancel",
        summary="Cancel all events that match",
        responses={200: ("Cancelled", "how many it met, cancelled, and asked to stop")},
        body="CancelMany",
        more_problems=_BODY,
    ),
    Operation(
        id="retryEvents",
        method="post",
        path="/events/retry",
        summary="Retry all events that match",
        responses={200: ("Retried", "how many it met, and how many of them it retried")},
        body="RetryMany",
        more_problems=_BODY,
    ),
    Operation(
        id="getEvent",
        method="get",
        path="/events/{event_id}",
        summary="Look at an event",
        responses={200: ("Event", "the event as it is now"), 304: ("", "as the client has it")},
        parameters=(*_ID, "If-None-Match", "Prefer"),
        then=("cancelEvent", "retryEvent"),
    ),
    Operation(
        id="cancelEvent",
        method="post",
        path="/events/{event_id}/cancel",
        summary="Cancel an event",
        responses={
            200: ("Event", "it is cancelled"),
            202: ("Event", "it is being processed, and its handler is asked to stop"),
        },
        parameters=_ID,
        more_problems=(409, *_BODY),
        then=("getEvent", "retryEvent"),
    ),
    Operation(
        id="retryEvent",
        method="post",
        path="/events/{event_id}/retry",
        summary="Retry a failed or cancelled event",
        responses={202: ("Event", "it is pending again, with a fresh budget")},
        parameters=_ID,
        more_problems=(409, *_BODY),
        then=("getEvent", "cancelEvent"),
    ),
    Operation(
        id="listSchedules",
        method="get",
        path="/schedules",
        summary="List schedules, by name",
        responses={200: ("SchedulePage", "a page; `next_cursor` is null on the last one")},
        parameters=("limit", "cursor"),
    ),
    Operation(
        id="getSchedule",
        method="get",
        path="/schedules/{name}",
        summary="Look at a schedule",
        responses={
            200: ("Schedule", "the schedule as it is now"),
            304: ("", "as the client has it"),
        },
        parameters=("name", "If-None-Match"),
    ),
    Operation(
        id="putSchedule",
        method="put",
        path="/schedules/{name}",
        summary="Make a schedule, or change all of it",
        responses={200: ("Schedule", "it was changed"), 201: ("Schedule", "it was made")},
        parameters=("name",),
        body="NewSchedule",
        more_problems=(409, *_BODY),
    ),
    Operation(
        id="deleteSchedule",
        method="delete",
        path="/schedules/{name}",
        summary="Remove a schedule; the events that it has made stay",
        responses={204: ("", "it is removed")},
        parameters=("name",),
    ),
    Operation(
        id="runSchedule",
        method="post",
        path="/schedules/{name}/run",
        summary="Make a schedule's event now",
        responses={202: ("Accepted", "stored; it will be processed")},
        parameters=("name", "Idempotency-Key", "X-Request-Id", "traceparent"),
        more_problems=_BODY,
        then=("getEvent", "cancelEvent", "retryEvent"),
    ),
    Operation(
        id="getHealth",
        method="get",
        path="/health",
        summary="Tell how everything is",
        responses={
            200: ("Health", "events are accepted"),
            503: ("Health", "events can't be accepted"),
        },
    ),
    Operation(
        id="getLiveness",
        method="get",
        path="/health/live",
        summary="Tell that this process runs",
        responses={200: ("HealthStatus", "it does")},
    ),
    Operation(
        id="getReadiness",
        method="get",
        path="/health/ready",
        summary="Tell whether events are accepted",
        responses=_HEALTH_STATUS,
    ),
    Operation(
        id="getMetrics",
        method="get",
        path="/metrics",
        summary="Metrics, for Prometheus or as JSON",
        responses={200: ("Metrics", "what is known within a second")},
    ),
    Operation(
        id="getDescription",
        method="get",
        path="/openapi.json",
        summary="This description",
        responses={200: ("Description", "OpenAPI 3.1")},
    ),
)
