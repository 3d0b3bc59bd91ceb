"""How fast one worker process works off a backlog, by the shape of the work.

Ended/s: from the first claim to the last end, by the documents' own times. "of what could be":
divided by the threads over the length of a run, where that is the limit. What comes due later is
counted from its due time, failures once they are final, retries included. Peers are measured with
plain functions of 5 ms alone (for Node: timers), with the number of threads that is usual for each.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from infra.bench.event_types.shapes import QUEUES
from infra.bench.figures import Figure, errors
from infra.bench.stack import Bench, Stack

_MODULES = "infra.bench.event_types.shapes"
_PATIENCE_SECONDS = 60.0
_THREADS = 8
_PRIORITIES = ("high", "normal", "low")
_QUICK_EVERY, _QUICK_PART = 4, 10


@dataclass(frozen=True, slots=True)
class Shape:
    """`events` are posted by turns; `ms`: how long each holds a thread; 0: nothing does."""

    name: str
    label: str
    count: int
    events: list[dict[str, Any]]
    ms: int = 0
    threads: int = _THREADS
    status: str = "completed"
    is_later: bool = False
    """Posted while the worker runs, because it is due some time after that."""

    @property
    def most_per_second(self) -> float | None:
        return self.threads * 1000 / self.ms if self.ms else None


def _plain(ms: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": "bench.plain", "payload": {"ms": ms} if ms else {}, **more}


def _coroutine(ms: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": "bench.coroutine", "payload": {"ms": ms} if ms else {}, **more}


def _failing(event: dict[str, Any], times: int, **more: Any) -> dict[str, Any]:
    return event | {"payload": {"fails": times}, **more}


WORK = Shape("plain_5ms_16", "plain functions of 5 ms, 16 threads", 8_000, [_plain(5)], 5, 16)
"""What peers are measured with too."""
SHAPES = (
    Shape("coroutine", "coroutines, nothing to do", 20_000, [_coroutine()]),
    Shape("coroutine_20ms", "coroutines of 20 ms", 20_000, [_coroutine(20)]),
    Shape("plain", "plain functions, nothing to do", 20_000, [_plain()]),
    Shape("plain_1ms", "plain functions of 1 ms, 8 threads", 10_000, [_plain(1)], 1),
    Shape("plain_5ms", "plain functions of 5 ms, 8 threads", 6_000, [_plain(5)], 5),
    WORK,
    Shape("plain_20ms", "plain functions of 20 ms, 8 threads", 3_000, [_plain(20)], 20),
    Shape("plain_100ms", "plain functions of 100 ms, 8 threads", 800, [_plain(100)], 100),
    Shape("both", "plain functions of 1 ms and coroutines", 10_000, [_plain(1), _coroutine()]),
    Shape(
        "fails",
        "coroutines that fail for good",
        20_000,
        [_failing(_coroutine(), 9, max_attempts=1)],
        status="failed",
    ),
    Shape(
        "plain_fails",
        "plain functions that fail for good",
        10_000,
        [_failing(_plain(), 9, max_attempts=1)],
        status="failed",
    ),
    Shape("fails_once", "coroutines that fail once", 20_000, [_failing(_coroutine(), 1)]),
    Shape("later", "all due after 3 s", 20_000, [_coroutine(delay_ms=3_000)], is_later=True),
    Shape("priorities", "three priorities", 20_000, [_coroutine(priority=p) for p in _PRIORITIES]),
    Shape(
        "queues",
        f"{QUEUES} queues",
        20_000,
        [{"type": f"bench.queue_{number}", "payload": {}} for number in range(QUEUES)],
    ),
)


def measure(bench: Bench) -> list[Figure]:
    if bench.contestant.is_peer:
        return _of_peer(bench)
    figures, lost = [], 0
    for shape in SHAPES[::_QUICK_EVERY] if bench.quick else SHAPES:
        with bench.stack(EVENT_TYPE_MODULES=_MODULES, WORKER_THREADS=str(shape.threads)) as stack:
            count = shape.count // _QUICK_PART if bench.quick else shape.count
            stack.start_web()
            per_second, ended = _worked_off(stack, shape, count)
            lost += count - ended
            figures.append(Figure(shape.name, f"{shape.label}: ended/s", per_second))
            if shape.most_per_second:
                share = per_second / shape.most_per_second
                figures.append(Figure(f"{shape.name}.share", "  of what could be", share))
    return [*figures, errors(lost)]


def _worked_off(stack: Stack, shape: Shape, count: int) -> tuple[float, int]:
    """Ended a second, and how many ended in time."""
    if shape.is_later:
        stack.start_worker()
        stack.wait_workers()
    events = [json.dumps(event) for event in shape.events] * (count // len(shape.events) + 1)
    random.Random(1).shuffle(events)
    stack.http.post_all(events[:count])
    if not shape.is_later:
        stack.start_worker()
    stack.jobs.wait_done(_PATIENCE_SECONDS)
    curve = stack.jobs.completions(status=shape.status)
    return curve.rate(), curve.total


def _of_peer(bench: Bench) -> list[Figure]:
    """A peer takes no batches: its backlog is what it accepts in some seconds."""
    with bench.stack() as stack:
        stack.start_web()
        stack.http.post_for(5 * bench.seconds, stack.jobs, WORK.count, json.dumps(WORK.events[0]))
        stack.start_worker()
        stack.worker.wait_until(stack.jobs.any_completed, "a first completed job")
        stack.jobs.wait_done(4 * bench.seconds)
        rate = stack.jobs.completions().rate()
    return [Figure(WORK.name, f"{WORK.label}: ended/s", rate), errors(0)]
