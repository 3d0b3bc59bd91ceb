"""Builds what `dramatiq` runs: the broker with its middleware, and an actor for each event type.

It connects to nothing. The web imports it too, for the event types and their schemas.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
from collections.abc import Callable

import dramatiq
from dramatiq.middleware import Retries

from service.catalog import Catalog, catalog
from service.clock import ServerClock
from service.errors import CatalogError, SettingError
from service.queue import redis_client
from service.queue.broker import DEAD_LETTER_ACTOR, PulseBroker
from service.runtime import log
from service.settings import Settings
from service.store import JobStore
from service.worker.lifecycle import Lifecycle
from service.worker.running.time_limits import HandlerTimeLimit, TimeLimits

DeclareDeadLetter = Callable[[PulseBroker, Callable[[], tuple[JobStore, ServerClock]]], None]
"""Declares the dead-letter actor; its second argument returns the worker's store and clock."""


def build(package: str, declare_dead_letter: DeclareDeadLetter) -> PulseBroker:
    """The broker with the event types of this package, which `dramatiq` then finds.

    Ends the process for a bad setting or event type, with a message that names it.
    """
    try:
        settings = Settings.from_env()
        log.configure(settings)
        load_event_types(package, settings)
        broker = build_broker(settings, catalog, declare_dead_letter)
    except (SettingError, CatalogError) as error:
        logging.getLogger(__name__).critical("can't start: %s", error)
        print(f"can't start: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    dramatiq.set_broker(broker)
    return broker


def build_broker(
    settings: Settings, types: Catalog, declare_dead_letter: DeclareDeadLetter
) -> PulseBroker:
    """The broker, one actor an event type, and the dead-letter actor.

    The time limit is registered last: hooks unwind in reverse, so it is off before any other runs.
    """
    lifecycle = Lifecycle(settings, types)
    broker = PulseBroker(
        redis_client.connect(settings),
        window=settings.redis_window_messages,
        consumer_factory=lifecycle.consumer,
        is_event_type=types.get,
        middleware=[
            lifecycle,
            Retries(),
            HandlerTimeLimit(TimeLimits()),
        ],
    )
    declare_dead_letter(broker, lambda: (lifecycle.process.store, lifecycle.process.clock))
    for event_type in types:
        dramatiq.actor(
            broker=broker,
            actor_name=event_type.name,
            queue_name=event_type.queue,
            retry_when=_asked_for,
            on_retry_exhausted=DEAD_LETTER_ACTOR,
        )(lifecycle.run)
    return broker


def load_event_types(package: str, settings: Settings) -> None:
    """Imports every module of the package, and those that `EVENT_TYPE_MODULES` names."""
    here = [f"{package}.{m.name}" for m in pkgutil.iter_modules(sys.modules[package].__path__)]
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
