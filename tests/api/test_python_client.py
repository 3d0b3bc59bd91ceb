"""The client that openapi-python-client makes of /openapi.json: every operation, as one calls it.

The generator must have nothing to warn of: what it warns of, it leaves out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from marshmallow import Schema, fields, validate

from service.api.openapi import description
from service.api.openapi_operations import OPERATIONS
from service.catalog import Catalog
from service.settings import Settings
from service.store import JobStore
from tests.api.server import Web
from tests.factories import claimed, failed, finish, make_catalog, make_type

PACKAGE = "generated_client"
SECONDS = 20


def generate(document: str, folder: Path) -> Path:
    """The package that the generator writes into `folder`; fails where it warns of something."""
    path = folder / "openapi.json"
    path.write_text(document)
    bin_folder = Path(sys.executable).parent
    ran = subprocess.run(
        [
            *(bin_folder / "openapi-python-client", "generate", "--meta", "none"),
            *("--path", path, "--output-path", folder / PACKAGE, "--fail-on-warning"),
        ],
        env=os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert said.split() == ["Generating", str(folder / PACKAGE)], said
    return folder / PACKAGE


def modules_of(package: Path) -> list[str]:
    """Every module of the package, by the name to import it under."""
    found = [path.relative_to(package.parent) for path in package.rglob("*.py")]
    return [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in found]


class Generated:
    """The generated package, and a client of it for the web."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.models = import_module(f"{PACKAGE}.models")
        self.client = import_module(f"{PACKAGE}.client").Client(base_url=url)

    def call(self, path: str, *given: Any, client: Any = None, **named: Any) -> Any:
        """What the function in `api/PATH.py` answers: status and what it parsed."""
        function = import_module(f"{PACKAGE}.api.{path.replace('/', '.')}").sync_detailed
        return function(*given, client=client or self.client, **named)

    def problem(self, status: int, path: str, *given: Any, **named: Any) -> Any:
        """The problem that it answers with this status."""
        answer = self.call(path, *given, **named)
        assert (answer.status_code, type(answer.parsed)) == (status, self.models.Problem)
        assert answer.parsed.status == status
        assert answer.parsed.request_id == answer.headers["X-Request-Id"]
        return answer.parsed

    def event(self, **given: Any) -> Any:
        """A `simulate` event to post."""
        payload = self.models.PayloadSimulate(result={"hello": "world"})
        return self.models.NewEventSimulate(type_="simulate", payload=payload, **given)

    def post(self) -> str:
        """The id of an event that waits for a while."""
        return str(self.call("events/post_event", body=self.event(delay_ms=60_000)).parsed.id)


@pytest.fixture(scope="module")
def package(web: Web, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(web.http.get("/openapi.json").text, tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="module")
def api(web: Web, package: Path) -> Iterator[Generated]:
    sys.path.insert(0, str(package.parent))
    generated = Generated(web.url)
    yield generated
    generated.client.get_httpx_client().close()
    sys.path.remove(str(package.parent))
    for name in [n for n in sys.modules if n.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_all_that_is_generated_can_be_imported(api: Generated, package: Path) -> None:
    for name in modules_of(package):
        import_module(name)


def test_the_models_have_names_that_one_would_have_given_them(api: Generated) -> None:
    made = {
        n for n in api.models.__all__ if n.startswith(("Batch", "Canc", "Event", "Health", "Retr"))
    }
    assert made == {
        *("BatchAccepted", "BatchItemSimulate", "BatchItemWebhook", "BatchRefused"),
        *("BatchResults", "Event", "EventError", "EventLinks", "EventPage", "EventPayload"),
        *("EventStatus", "Health", "HealthCheck", "HealthChecks", "HealthStatus"),
        *("Retried", "RetryMany", "RetryableStatus"),
        *("Cancelled", "CancelMany", "CancellableStatus"),
    }
    assert not [name for name in api.models.__all__ if "Type0" in name or "Item0" in name]


# every operation, by its id


def post_event(api: Generated, jobs: JobStore) -> None:
    priority = api.models.Priority.HIGH
    event = api.event(priority=priority, delay_ms=60_000)
    first = api.call("events/post_event", body=event, idempotency_key="python-1")
    assert (first.status_code, first.parsed.status) == (202, api.models.EventStatus.PENDING)
    assert first.parsed.links.self_ == first.headers["Location"] == f"/events/{first.parsed.id}"
    again = api.call("events/post_event", body=event, idempotency_key="python-1")
    assert (again.parsed, again.headers["Idempotency-Replayed"]) == (first.parsed, "true")

    api.problem(422, "events/post_event", body=api.event(), idempotency_key="python-1")
    problem = api.problem(422, "events/post_event", body=api.event(max_attempts=0))
    assert [error.pointer for error in problem.errors] == ["/max_attempts"]
    api.problem(400, "events/post_event", body=api.event(), idempotency_key="no key")


def post_events(api: Generated, jobs: JobStore) -> None:
    item = api.models.BatchItemSimulate(
        type_="simulate", payload=api.models.PayloadSimulate(), idempotency_key="python-2"
    )
    refused = api.models.BatchItemSimulate(type_="simulate", payload=item.payload, max_attempts=0)
    all_stored = api.call("events/post_events", body=api.models.NewEvents(events=[item]))
    assert all_stored.status_code == 202
    (stored,) = all_stored.parsed.results
    assert (type(stored), stored.status) == (api.models.BatchAccepted, "pending")

    some = api.call("events/post_events", body=api.models.NewEvents(events=[item, refused]))
    assert some.status_code == 207
    known, not_stored = some.parsed.results
    assert (known.id, known.replayed) == (stored.id, True)
    assert type(not_stored) is api.models.BatchRefused
    assert not_stored.error.errors[0].pointer == "/max_attempts"
    api.problem(422, "events/post_events", body=api.models.NewEvents(events=[]))


def list_events(api: Generated, jobs: JobStore) -> None:
    ids = [api.post() for _ in range(3)]
    jobs_of_others = failed(jobs)
    wanted: dict[str, Any] = {
        "status": api.models.EventStatus.PENDING,
        "type_": "simulate",
        "created_after": jobs_of_others["created_at"],
        "limit": 2,
    }
    first = api.call("events/list_events", **wanted).parsed
    second = api.call("events/list_events", **wanted, cursor=first.next_cursor).parsed
    assert [event.id for event in [*first.events, *second.events]] == ids[::-1]
    assert second.next_cursor is None
    api.problem(400, "events/list_events", cursor="none")


def get_event(api: Generated, jobs: JobStore) -> None:
    event_id = api.post()
    looked = api.call("events/get_event", event_id, prefer="wait=0")
    event = looked.parsed
    assert event.status is api.models.EventStatus.PENDING
    assert event.payload.to_dict() == {"result": {"hello": "world"}}
    assert (event.started_at, event.error, event.result) == (None, None, None)
    same = api.call("events/get_event", event_id, if_none_match=looked.headers["ETag"])
    assert (same.status_code, same.parsed) == (304, None)

    ended = api.call("events/get_event", failed(jobs)["_id"]).parsed
    assert (ended.status, ended.error.reason) == ("failed", api.models.FailureReason.REJECTED)
    (attempt,) = ended.history
    assert (attempt.attempt, attempt.outcome) == (1, api.models.AttemptOutcome.REJECTED)
    assert attempt.error.message == "no"
    assert attempt.finished_at <= ended.finished_at
    api.problem(400, "events/get_event", "none")
    api.problem(404, "events/get_event", event_id[:-12] + "0" * 12)


def cancel_event(api: Generated, jobs: JobStore) -> None:
    cancelled = api.call("events/cancel_event", api.post())
    assert (cancelled.status_code, cancelled.parsed.status) == (200, "cancelled")
    job = claimed(jobs)
    asked = api.call("events/cancel_event", job.id)
    assert (asked.status_code, asked.parsed.status) == (202, "processing")
    finish(jobs, job)
    api.problem(409, "events/cancel_event", job.id)


def retry_event(api: Generated, jobs: JobStore) -> None:
    event = failed(jobs, max_attempts=3)
    again = api.call("events/retry_event", event["_id"])
    assert (again.status_code, again.parsed.status) == (202, "pending")
    assert (again.parsed.attempts, again.parsed.max_attempts) == (1, 6)
    api.problem(409, "events/retry_event", event["_id"])


def retry_events(api: Generated, jobs: JobStore) -> None:
    failed(jobs)
    which = api.models.RetryMany(status=api.models.RetryableStatus.FAILED, dry_run=True)
    counted = api.call("events/retry_events", body=which).parsed
    assert (counted.matched, counted.retried) == (1, 0)
    which.dry_run = False
    done = api.call("events/retry_events", body=which).parsed
    assert (done.matched, done.retried) == (1, 1)
    api.problem(422, "events/retry_events", body=api.models.RetryMany())


def cancel_events(api: Generated, jobs: JobStore) -> None:
    event_id = api.post()
    claimed(jobs, type="simulate")
    which = api.models.CancelMany(type_="simulate", dry_run=True)
    counted = api.call("events/cancel_events", body=which).parsed
    assert (counted.matched, counted.cancelled, counted.asked) == (2, 0, 0)
    which.dry_run = False
    done = api.call("events/cancel_events", body=which).parsed
    assert (done.matched, done.cancelled, done.asked) == (2, 1, 1)
    assert api.call("events/get_event", event_id).parsed.status == "cancelled"
    api.problem(422, "events/cancel_events", body=api.models.CancelMany())


def a_schedule(api: Generated) -> Any:
    event = api.models.ScheduleEventSimulate(
        type_="simulate", payload=api.models.PayloadSimulate(), max_attempts=2
    )
    return api.models.NewSchedule(event=event, cron="0 3 * * *", timezone="Europe/Berlin")


def put_schedule(api: Generated, jobs: JobStore) -> None:
    made = api.call("schedules/put_schedule", "python", body=a_schedule(api))
    assert (made.status_code, made.parsed.name, made.parsed.paused) == (201, "python", False)
    every = api.models.NewSchedule(
        event=a_schedule(api).event, every_seconds=60, overlap=api.models.ScheduleOverlap.SKIP
    )
    changed = api.call("schedules/put_schedule", "python", body=every)
    assert (changed.status_code, changed.parsed.every_seconds) == (200, 60)
    neither = api.models.NewSchedule(event=every.event)
    api.problem(422, "schedules/put_schedule", "python", body=neither)


def get_schedule(api: Generated, jobs: JobStore) -> None:
    api.call("schedules/put_schedule", "python", body=a_schedule(api))
    looked = api.call("schedules/get_schedule", "python")
    assert (looked.parsed.cron, looked.parsed.last_run_at) == ("0 3 * * *", None)
    assert looked.parsed.missed is api.models.ScheduleMissed.ONE
    assert looked.parsed.event.to_dict()["max_attempts"] == 2
    assert looked.parsed.upcoming[0] == looked.parsed.next_run_at
    same = api.call("schedules/get_schedule", "python", if_none_match=looked.headers["ETag"])
    assert (same.status_code, same.parsed) == (304, None)
    api.problem(404, "schedules/get_schedule", "missing")


def list_schedules(api: Generated, jobs: JobStore) -> None:
    for name in ("python-1", "python-2"):
        api.call("schedules/put_schedule", name, body=a_schedule(api))
    first = api.call("schedules/list_schedules", limit=1).parsed
    second = api.call("schedules/list_schedules", limit=1, cursor=first.next_cursor).parsed
    assert first.schedules[0].name < second.schedules[0].name
    api.problem(400, "schedules/list_schedules", limit=0)


def delete_schedule(api: Generated, jobs: JobStore) -> None:
    api.call("schedules/put_schedule", "python", body=a_schedule(api))
    removed = api.call("schedules/delete_schedule", "python")
    assert (removed.status_code, removed.parsed) == (204, None)
    api.problem(404, "schedules/delete_schedule", "python")


def run_schedule(api: Generated, jobs: JobStore) -> None:
    api.call("schedules/put_schedule", "python", body=a_schedule(api))
    ran = api.call("schedules/run_schedule", "python", idempotency_key="python-run")
    assert (ran.status_code, ran.parsed.schedule) == (202, "python")
    (event,) = api.call("events/list_events", schedule="python").parsed.events
    assert (event.id, event.schedule) == (ran.parsed.id, "python")


def get_health(api: Generated, jobs: JobStore) -> None:
    health = api.call("health/get_health").parsed
    assert health.status in {"ok", "degraded"}
    assert health.checks.mongodb.status is api.models.CheckStatus.OK
    assert health.checks.mongodb.latency_ms >= 0
    assert health.checks.workers.workers == []


def get_liveness(api: Generated, jobs: JobStore) -> None:
    live = api.call("health/get_liveness").parsed
    assert live == api.models.HealthStatus(status=api.models.SystemStatus.OK)


def get_readiness(api: Generated, jobs: JobStore) -> None:
    assert api.call("health/get_readiness").parsed.status in {"ok", "degraded"}


def get_metrics(api: Generated, jobs: JobStore) -> None:
    assert "# TYPE pulsequeue_workers_alive gauge" in api.call("metrics/get_metrics").parsed
    headers = {"Accept": "application/json"}
    with type(api.client)(base_url=api.url, headers=headers) as wants_json:
        text = api.call("metrics/get_metrics", client=wants_json).parsed
    metrics = api.models.Metrics.from_dict(json.loads(text))
    assert metrics.received >= 0
    assert metrics.up.to_dict() == {"mongodb": True, "redis": True}


def get_description(api: Generated, jobs: JobStore) -> None:
    described = api.call("openapi/get_description").parsed
    assert described["openapi"] == "3.1.0"


USES: dict[str, Callable[[Generated, JobStore], None]] = {
    "postEvent": post_event,
    "postEvents": post_events,
    "listEvents": list_events,
    "getEvent": get_event,
    "cancelEvent": cancel_event,
    "retryEvent": retry_event,
    "retryEvents": retry_events,
    "cancelEvents": cancel_events,
    "putSchedule": put_schedule,
    "getSchedule": get_schedule,
    "listSchedules": list_schedules,
    "deleteSchedule": delete_schedule,
    "runSchedule": run_schedule,
    "getHealth": get_health,
    "getLiveness": get_liveness,
    "getReadiness": get_readiness,
    "getMetrics": get_metrics,
    "getDescription": get_description,
}


@pytest.mark.parametrize("operation", [operation.id for operation in OPERATIONS])
def test_the_generated_function_does_what_the_operation_says(
    operation: str, api: Generated, jobs: JobStore
) -> None:
    USES[operation](api, jobs)


# event types of one's own


class AddressSchema(Schema):
    street = fields.String(required=True)
    country = fields.String(validate=validate.OneOf(["de", "fr"]))


class EventSchema(Schema):
    """Named as a schema of ours is."""

    at = fields.DateTime(allow_none=True)


class OrderSchema(Schema):
    address = fields.Nested(AddressSchema, required=True)
    events = fields.List(fields.Nested(EventSchema))
    lines = fields.Dict(keys=fields.String(), values=fields.Integer())
    kind = fields.String(validate=validate.OneOf(["new", "used"]), allow_none=True)
    price = fields.Decimal(as_string=True)
    note = fields.Raw(allow_none=True)


def own_types() -> Catalog:
    order, refund = (
        make_type(name, schema=OrderSchema()) for name in ("order.placed-v2", "order.refunded")
    )
    return make_catalog([order, refund, make_type("anything")])


def test_a_client_knows_the_types_of_ones_own(tmp_path: Path) -> None:
    document = description(own_types(), Settings().max_batch_events)
    package = generate(json.dumps(document), tmp_path)
    for path in package.rglob("*.py"):
        compile(path.read_text(), path, "exec")
    made = {path.stem for path in (package / "models").iterdir()}
    assert made >= {"new_event_order_placed_v2", "payload_order_refunded", "event_page"}
