"""Throughput and latency against the number of connections, for the plot.

ingest: no worker runs; POST/s, and p50 and p99 of the answers. pipeline: one worker runs;
completed/s, and p50 and p99 from created to completed, by the documents' own times.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from infra.bench.figures import Figure, errors, lower, percentile
from infra.bench.load import Load
from infra.bench.stack import Bench, Stack

CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
QUICK_CONNECTIONS = (1, 16, 128)
_TAIL_SECONDS = 40.0


def measure(bench: Bench) -> list[Figure]:
    connections = QUICK_CONNECTIONS if bench.quick else CONNECTIONS
    seconds = max(1, bench.seconds // 2)
    figures = []
    with bench.stack() as stack:
        stack.start_web()
        stack.warm_up()
        for n in connections:
            figures += _accepting(stack, n, seconds)
        stack.clear()
        stack.start_worker()
        stack.warm_up()
        for n in connections:
            figures += _both(stack, n, seconds)
    bad = sum(f.value for f in figures if f.name.endswith("errors"))
    return [*(f for f in figures if not f.name.endswith("errors")), errors(bad)]


def _accepting(stack: Stack, n: int, seconds: int) -> list[Figure]:
    loaded = Load(stack.port, n, seconds).finish()
    times = (loaded.p50_ms, loaded.p99_ms)
    return _point(f"ingest.{n}", loaded.per_second, times, loaded.errors)


def _both(stack: Stack, n: int, seconds: int) -> list[Figure]:
    load = Load(stack.port, n, seconds + 1)
    time.sleep(0.7)
    begin = datetime.now(UTC)
    time.sleep(seconds)
    end = datetime.now(UTC)
    loaded = load.finish()
    stack.jobs.wait_done(_TAIL_SECONDS)
    per_second = stack.jobs.within("finished_at", begin, end) / (end - begin).total_seconds()
    times = stack.jobs.latencies_ms(begin)
    shares = (percentile(times, 0.5), percentile(times, 0.99))
    return _point(f"pipeline.{n}", per_second, shares, loaded.errors + stack.jobs.count_open())


def _point(name: str, per_second: float, times: tuple[float, float], bad: float) -> list[Figure]:
    return [
        Figure(f"{name}.per_second", f"{name}: events/s", per_second),
        lower(f"{name}.p50_ms", f"{name}: p50, ms", times[0]),
        lower(f"{name}.p99_ms", f"{name}: p99, ms", times[1]),
        lower(f"{name}.errors", f"{name}: errors", bad),
    ]
