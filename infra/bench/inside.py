"""The project's own parts, in the benchmark's process: what can't be measured from outside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infra.bench.stack import Stack
from service.catalog import Catalog, catalog
from service.clock import ServerClock
from service.queue.broker import DEAD_LETTER_ACTOR
from service.settings import Settings
from service.store import Stores, mongo


def event_types() -> Catalog:
    """Those that ship. Importing `actors` reads the settings and connects to nothing."""
    import actors  # noqa: F401

    logging.getLogger().setLevel(logging.ERROR)  # it has set up logging, to where the table goes
    return catalog


def async_places(async_concurrency: int) -> int:
    """How many jobs of `simulate` a worker process runs at once, where that setting bounds them."""
    types = event_types()
    from service.worker.holding.capacity import Capacity

    capacity = Capacity(threads=1, places=async_concurrency)
    return max(capacity.room(t) for t in types if t.name == "simulate")


@contextmanager
def sweep_on(stack: Stack) -> Iterator[Callable[[], None]]:
    """A function that does one tick of the sweep on the stack's servers."""
    types = event_types()
    from actors import dead_letter
    from service.worker.build import build_broker
    from service.worker.maintenance import sweep
    from service.worker.maintenance.dispatch import dispatch

    settings = Settings(redis_url=stack.redis_server.url, mongodb_uri=stack.mongo_server.url)
    database = mongo.connect(settings)
    stores, clock = Stores(database, settings), ServerClock()
    broker = build_broker(settings, types, dead_letter.declare)

    def tick() -> None:
        now = clock.now()
        sweep.rescue(stores.jobs, stores.workers, stores.counters, now)
        dispatch(stores.jobs, broker.lanes, {t.name: t.queue for t in types}, now)
        sweep.send_dead_letters(stores.jobs, broker, DEAD_LETTER_ACTOR, now)

    try:
        yield tick
    finally:
        broker.close()
        database.client.close()
