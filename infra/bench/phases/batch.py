"""How fast events are accepted 1,000 at a time, by `POST /events/batch`, while no worker runs.

events/s: what is stored in the end, divided by the time. p99: milliseconds to the answer of one
batch.
"""

from __future__ import annotations

from infra.bench.figures import Figure, errors, lower
from infra.bench.load import EVENT, Load
from infra.bench.over_http import batch_of
from infra.bench.stack import Bench

_EVENTS = 1_000
_CONNECTIONS = 4


def measure(bench: Bench) -> list[Figure]:
    with bench.stack() as stack:
        stack.start_web()
        stack.http.post_many(2 * _EVENTS)  # warm up
        before = stack.jobs.count()
        load = Load(
            stack.port,
            _CONNECTIONS,
            bench.seconds,
            body=batch_of([EVENT] * _EVENTS),
            path="/events/batch",
        )
        loaded = load.finish()
        missing = before + loaded.requests * _EVENTS - stack.jobs.count()
    return [
        Figure("per_second", "batches of 1,000: events/s", loaded.per_second * _EVENTS),
        lower("p99_ms", "  p99 of a batch, ms", loaded.p99_ms),
        errors(loaded.errors + max(0, missing)),
    ]
