"""The web application. `create_app` is pure; `get_app`, for gunicorn, reads the environment."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from typing import Any

import dramatiq
from falcon.asgi import Request, Response

from service.api import problems
from service.api.batch import BatchResource, Limits
from service.api.bulk_changes import CancelManyResource, RetryManyResource
from service.api.description import DescriptionResource
from service.api.edge import BEGAN, WebApp
from service.api.event_actions import CancelResource, RetryResource
from service.api.event_writer import EventWriter
from service.api.events import EventResource, EventsResource
from service.api.intake import Intake
from service.api.monitoring import HealthResource, MetricsResource
from service.api.schedules import RunResource, ScheduleResource, SchedulesResource
from service.catalog import Catalog, catalog
from service.clock import ServerClock
from service.errors import CatalogError, SettingError
from service.metrics.http_times import HttpTimes
from service.queue.broker import PulseBroker
from service.settings import Settings
from service.store import Stores
from service.web.process import WebProcess

_BOOT_ERROR = 3
"""gunicorn's own exit code for it: the one that it doesn't answer by starting the next process."""


def create_app(
    settings: Settings,
    stores: Stores,
    broker: PulseBroker,
    event_types: Catalog,
    clock: ServerClock,
) -> WebApp:
    """The application on these parts; they start and stop with the ASGI lifespan."""
    web = WebProcess(settings, stores, broker, event_types, clock)
    app = WebApp(
        max_bytes=lambda path: (
            settings.max_batch_bytes if path == "/events/batch" else settings.max_body_bytes
        ),
        body_timeout_seconds=settings.body_timeout_seconds,
        refused=lambda method, status, began: web.http_times.observe(
            method, None, status, time.perf_counter() - began
        ),
        leave=web.leave,
        middleware=[_Lifespan(web), _EveryAnswer(web.http_times)],
    )
    problems.install(app)
    _add_routes(app, web)
    return app


def _add_routes(app: WebApp, web: WebProcess) -> None:
    _add_events(app, web)
    app.add_route("/events/cancel", CancelManyResource(web))
    app.add_route("/events/retry", RetryManyResource(web))
    app.add_route("/events/{event_id}/cancel", CancelResource(web))
    app.add_route("/events/{event_id}/retry", RetryResource(web))
    _add_schedules(app, web)
    most_events = web.settings.max_batch_events
    app.add_route("/openapi.json", DescriptionResource(web.catalog, max_batch_events=most_events))
    app.add_route("/metrics", MetricsResource(web.totals))
    health = HealthResource(web.health)
    app.add_route("/health", health)
    app.add_route("/health/live", health, suffix="live")
    app.add_route("/health/ready", health, suffix="ready")


def _add_schedules(app: WebApp, web: WebProcess) -> None:
    intake = Intake(web.catalog, web.clock)
    app.add_route("/schedules", SchedulesResource(web))
    app.add_route("/schedules/{name}", ScheduleResource(web, intake))
    app.add_route("/schedules/{name}/run", RunResource(web, intake))


def _add_events(app: WebApp, web: WebProcess) -> None:
    settings, lane, intake = web.settings, web.cpu_lane, Intake(web.catalog, web.clock)
    events = EventsResource(
        intake, web.acceptor, web.pages, lane, web.clock, max_nesting=settings.max_nesting
    )
    limits = Limits(settings.max_batch_events, settings.max_body_bytes, settings.max_nesting)
    writer = EventWriter(lane, web.clock)
    app.add_route("/events", events)
    app.add_route("/events/batch", BatchResource(intake, web.acceptor, lane, limits))
    app.add_route("/events/{event_id}", EventResource(web.lookup, web.long_poll, writer))


class _Lifespan:
    """Falcon middleware: the process's parts live as long as the server does."""

    def __init__(self, web: WebProcess) -> None:
        self._web = web

    async def process_startup(self, scope: Any, event: Any) -> None:
        await asyncio.to_thread(self._web.start)

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        await asyncio.to_thread(self._web.stop)


class _EveryAnswer:
    """Falcon middleware: the request's id goes into each answer, its time into the histogram."""

    def __init__(self, http_times: HttpTimes) -> None:
        self._observe = http_times.observe

    async def process_response(
        self, req: Request, resp: Response, _resource: object, _succeeded: bool
    ) -> None:
        resp.set_header("X-Request-Id", req.scope[problems.REQUEST_ID])
        seconds = time.perf_counter() - req.scope[BEGAN]
        self._observe(req.method, req.uri_template, resp.status_code, seconds)


def get_app() -> WebApp:
    """Ends the process for a bad setting or event type, with a message that names it."""
    try:
        settings = Settings.from_env()
        broker = _load_event_types()
        stores = Stores.connect(settings)
    except (SettingError, CatalogError) as error:
        print(f"can't start: {error}", file=sys.stderr)
        sys.exit(_BOOT_ERROR)
    return create_app(settings, stores, broker, catalog, ServerClock())


def _load_event_types() -> PulseBroker:
    """`actors` fills the catalog and sets the broker; the dependency goes the other way round, so
    it is imported by name."""
    try:
        importlib.import_module("actors")
    except SystemExit:  # it has said why
        sys.exit(_BOOT_ERROR)
    broker = dramatiq.get_broker()
    if not isinstance(broker, PulseBroker):
        raise SettingError("EVENT_TYPE_MODULES: a module has replaced the broker")
    return broker
