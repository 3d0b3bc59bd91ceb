"""How long an event takes where there is no queue: 50 posts a second, evenly spaced.

p50, p99: milliseconds from `created_at` to `finished_at` in the event's own document.
"""

from __future__ import annotations

from datetime import UTC, datetime

from infra.bench.figures import Figure, errors, lower, percentile
from infra.bench.load import Load
from infra.bench.stack import Bench

_RATE = 50.0
_CONNECTIONS = 8
_SECONDS, _QUICK_SECONDS = 10, 3


def measure(bench: Bench) -> list[Figure]:
    with bench.stack() as stack:
        stack.start_worker()
        stack.start_web()
        stack.warm_up()
        since, seconds = datetime.now(UTC), _QUICK_SECONDS if bench.quick else _SECONDS
        loaded = Load(stack.port, _CONNECTIONS, seconds, rate=_RATE).finish()
        stack.jobs.wait_done(10.0)
        times = stack.jobs.latencies_ms(since)
    return [
        lower("p50_ms", "created to completed at 50/s: p50, ms", percentile(times, 0.5)),
        lower("p99_ms", "  p99, ms", percentile(times, 0.99)),
        errors(loaded.errors + loaded.requests - len(times)),
    ]
