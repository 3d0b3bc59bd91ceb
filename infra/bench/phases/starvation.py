"""What quick events wait for behind a flood of slow ones of another type, on one worker process.

p50, p99: milliseconds from `created_at` to the start of the handler. The flood is more than the
worker can hold: jobs of 500 ms on its 8 threads, then jobs of 1 s on its event loop. The quick
events come 25 a second, for two seconds each.
"""

from __future__ import annotations

import time

from infra.bench.figures import Figure, errors, lower, percentile
from infra.bench.load import Load
from infra.bench.stack import Bench, Stack

_MODULES = "infra.bench.event_types.sleeping,infra.bench.event_types.quick"
_ON_THREADS = ('{"type":"bench.sleep","payload":{"ms":500}}', 400)
_ON_THE_LOOP = ('{"type":"simulate","payload":{"duration_ms":1000}}', 10_000)
_RATE, _SECONDS = 25.0, 2
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
            stack.start_web()
            stack.start_worker()
            stack.wait_workers()
            stack.warm_up()
            stack.post_many(flood[1], flood[0])
            time.sleep(_LEAD_SECONDS)
            for quick in quick_types:
                waits, wanted = _behind(stack, quick)
                missing += wanted - len(waits)
                label, name = f"{quick} behind {behind}", f"{quick}.{behind.replace(' ', '_')}"
                figures += [
                    lower(f"{name}.p50_ms", f"{label}: p50 wait, ms", percentile(waits, 0.5)),
                    lower(f"{name}.p99_ms", "  p99, ms", percentile(waits, 0.99)),
                ]
    return [*figures, errors(missing)]


def _behind(stack: Stack, quick: str) -> tuple[list[float], int]:
    """The waits of quick events, and how many there should be."""
    body = f'{{"type":"{quick}","payload":{{}}}}'
    posted = Load(stack.port, 4, _SECONDS, body=body, rate=_RATE).finish()
    end = time.monotonic() + _PATIENCE_SECONDS
    while len(waits := stack.jobs.waits_ms(quick)) < posted.requests and time.monotonic() < end:
        time.sleep(0.1)
    return waits, posted.requests
