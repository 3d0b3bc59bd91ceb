"""Whether anything waits behind a busy worker while another one could take it.

Two worker processes get jobs of 200 ms, posted at once. Seconds: from the first creation to the
last end. "of the ideal": that, divided by what it takes where every place is always taken: number
of jobs x 0.2 s / places. Synchronous jobs have 8 threads a process. Asynchronous ones have as many
places as a process gives to one type with ASYNC_CONCURRENCY=100. 1,000 jobs of 1 s on one worker
with the default settings: all of them can wait at once.
"""

from __future__ import annotations

from infra.bench.figures import Figure, errors, lower
from infra.bench.inside import async_places
from infra.bench.processes import BenchError
from infra.bench.stack import Bench, Stack

_THREADS, _ASYNC_CONCURRENCY, _WORKERS = 8, 100, 2
_SLEEP = '{"type":"bench.sleep","payload":{"ms":200}}'
_WAIT = '{"type":"simulate","payload":{"duration_ms":%d}}'
_MODULE = "infra.bench.event_types.sleeping"
_SECONDS, _QUICK_SECONDS = 4, 1  # ideal length
_PATIENCE_SECONDS = 60.0


def measure(bench: Bench) -> list[Figure]:
    seconds = _QUICK_SECONDS if bench.quick else _SECONDS
    places = async_places(_ASYNC_CONCURRENCY) * _WORKERS
    with bench.stack(
        EVENT_TYPE_MODULES=_MODULE,
        WORKER_THREADS=str(_THREADS),
        ASYNC_CONCURRENCY=str(_ASYNC_CONCURRENCY),
    ) as stack:
        stack.start_worker(_WORKERS)
        stack.start_web()
        stack.wait_workers(_WORKERS)
        stack.warm_up()
        figures = [
            *_of_200_ms(stack, "on threads", _SLEEP, places=_THREADS * _WORKERS, seconds=seconds),
            *_of_200_ms(stack, "async", _WAIT % 200, places=places, seconds=seconds),
        ]
    with bench.stack() as stack:
        stack.start_worker()
        stack.start_web()
        stack.wait_workers()
        stack.warm_up()
        took = _makespan(stack, _WAIT % 1_000, 1_000)
    figures.append(lower("thousand.seconds", "1,000 async jobs of 1 s, one worker: seconds", took))
    return [*figures, errors(0)]


def _of_200_ms(stack: Stack, kind: str, event: str, *, places: int, seconds: int) -> list[Figure]:
    count = places * 5 * seconds
    took = _makespan(stack, event, count)
    label, name = f"{count:,} jobs of 200 ms {kind}, two workers", kind.replace(" ", "_")
    return [
        lower(f"{name}.seconds", f"{label}: seconds", took),
        lower(f"{name}.of_ideal", "  of the ideal", took / (count * 0.2 / places)),
    ]


def _makespan(stack: Stack, event: str, count: int) -> float:
    stack.jobs.clear()
    stack.http.post_many(count, event)
    if not stack.jobs.wait_done(_PATIENCE_SECONDS):
        raise BenchError(f"{stack.jobs.count_open()} of {count} jobs did not end: {event}")
    return stack.jobs.makespan()
