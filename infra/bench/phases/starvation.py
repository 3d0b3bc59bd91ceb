"""What quick events wait for behind a flood of slow ones of another type, on one worker process.

p50, p99: milliseconds from `created_at` to the start of the handler. The flood is more than the
worker can hold: jobs of 500 ms on its 8 threads, then jobs of 1 s on its event loop. The quick
events come 25 a second, for two seconds.
"""

from __future__ import annotations

import time

from infra.bench.figures import Figure, errors, lower, percentile
from infra.bench.load import Load
from infra.bench.stack import Bench, Stack

_MODULES = "infra.bench.event_types.sleeping,infra.bench.event_types.quick"
_ON_THREADS = ('{"type":"bench.sleep","payload":{"ms":500}}', 400)
_ON_THE_LOOP = ('{"type":"simulate","payload":{"duration_ms":1000}}', 10_000)
_RATE = 25.0
_LEAD_SECONDS = 1.0
_PATIENCE_SECONDS = 15.0


def measure(bench: Bench) -> list[Figure]:
    figures: list[Figure] = []
    missing = 0
    for flood, behind, quick_types in (
        (_ON_THREADS, "slow on threads", ("bench.quick", "bench.quick_async")),
        (_ON_THE_LOOP, "slow async", ("bench.quick_async",)),
    ):
        with bench.stack(EVENT_TYPE_MODULES=_MODULES, WORKER_THREADS="8") as stack:
            stack.start_worker()
            stack.start_web()
            stack.wait_workers()
            stack.warm_up()
            stack.http.post_many(flood[1], flood[0])
            time.sleep(_LEAD_SECONDS)
            loads = {quick: _post(stack, quick, 1 if bench.quick else 2) for quick in quick_types}
            for quick, load in loads.items():
                wanted = load.finish().requests
                waits = _waits(stack, quick, wanted)
                missing += wanted - len(waits)
                label, name = f"{quick} behind {behind}", f"{quick}.{behind.replace(' ', '_')}"
                figures += [
                    lower(f"{name}.p50_ms", f"{label}: p50 wait, ms", percentile(waits, 0.5)),
                    lower(f"{name}.p99_ms", "  p99, ms", percentile(waits, 0.99)),
                ]
    return [*figures, errors(missing)]


def _post(stack: Stack, quick: str, seconds: int) -> Load:
    body = f'{{"type":"{quick}","payload":{{}}}}'
    return Load(stack.port, 4, seconds, body=body, rate=_RATE)


def _waits(stack: Stack, quick: str, wanted: int) -> list[float]:
    """Of the quick events, when that many are completed, or after some time."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while len(waits := stack.jobs.waits_ms(quick)) < wanted and time.monotonic() < end:
        time.sleep(0.1)
    return waits
