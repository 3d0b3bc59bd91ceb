"""What `dramatiq actors` runs: builds the broker with its middleware, and loads the event types.

Importing it connects to nothing, so the web imports it too, for the event types and their schemas.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys

import dramatiq
from dramatiq.middleware import Retries, TimeLimit

from actors import dead_letter
from actors.lifecycle import Lifecycle
from service import log, redis_client
from service.broker import PulseBroker
from service.catalog import Catalog, catalog
from service.errors import CatalogError, SettingError
from service.settings import Settings

_TIME_LIMIT_TICK_MS = 250


def build_broker(settings: Settings, types: Catalog) -> PulseBroker:
    """The broker, one actor an event type, and the dead-letter actor.

    `TimeLimit` is registered last: hooks unwind in reverse, so it is off before any other hook
    runs, and can't strike in the middle of one (Dramatiq issue 445).
    """
    lifecycle = Lifecycle(settings, types)
    broker = PulseBroker(
        redis_client.connect(settings),
        window=settings.redis_window_messages,
        consumer_factory=lifecycle.consumer,
        middleware=[
            lifecycle,
            Retries(),
            TimeLimit(time_limit=float("inf"), interval=_TIME_LIMIT_TICK_MS),
        ],
    )
    dead_letter.declare(broker, lambda: (lifecycle.process.store, lifecycle.process.clock))
    for event_type in types:
        dramatiq.actor(
            broker=broker,
            actor_name=event_type.name,
            queue_name=event_type.queue,
            retry_when=_asked_for,
            on_retry_exhausted=dead_letter.ACTOR,
        )(lifecycle.run)
    return broker


def load_event_types(settings: Settings) -> None:
    """Imports every module of this package, and those that `EVENT_TYPE_MODULES` names."""
    here = [f"{__name__}.{m.name}" for m in pkgutil.iter_modules(__path__) if m.name not in _INNER]
    more = [name.strip() for name in settings.event_type_modules.split(",") if name.strip()]
    for name in here + more:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if name in more:
                raise SettingError(
                    f"EVENT_TYPE_MODULES: {name!r} can't be imported: {error}"
                ) from None
            raise


def _asked_for(_retries: int, exception: BaseException) -> bool:
    """MongoDB has decided before `Retries` is asked: it says so by the exception."""
    return isinstance(exception, dramatiq.Retry)


_INNER = {
    "committer",
    "consumer",
    "due",
    "endings",
    "finishing",
    "heartbeat",
    "inbox",
    "lease",
    "loop",
    "pace",
    "process",
    "registry",
    "runner",
    "shares",
    "supply",
    "sweep",
    "unheld",
}
"""Modules that only a worker needs."""


def _build() -> PulseBroker:
    try:
        settings = Settings.from_env()
        log.configure(settings)
        load_event_types(settings)
        return build_broker(settings, catalog)
    except (SettingError, CatalogError) as error:
        logging.getLogger(__name__).critical("can't start: %s", error)
        print(f"can't start: {error}", file=sys.stderr)
        raise SystemExit(2) from None


broker = _build()
dramatiq.set_broker(broker)
