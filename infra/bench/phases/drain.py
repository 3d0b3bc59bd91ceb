"""How fast a backlog is worked off by one worker process, while nothing is posted.

completed/s: from the first claim to the last completion, by the documents' own times; the start of
the process is not in it. Of the largest backlog only as much is drained as its time allows. The
same speed for every size means that the length of a backlog costs nothing. The first 2,000 (500) of
each compare just that, for they all hold the moment in which a worker finds its pace.

Redis, MB: what its memory has grown by when the backlog is there.
"""

from __future__ import annotations

import time

from infra.bench.documents import Curve
from infra.bench.figures import Figure, errors, lower
from infra.bench.stack import Bench, Stack

SIZES, QUICK_SIZES = (2_000, 20_000, 200_000), (500, 5_000)
_MAIN = 1  # which of the sizes is the one that peers are measured with
_SETTLE_SECONDS = 10.0
_OWN_LOOKS = 2  # commands: ours count too


def measure(bench: Bench) -> list[Figure]:
    sizes = QUICK_SIZES if bench.quick else SIZES
    with bench.stack() as stack:
        stack.start_web()
        if bench.contestant.is_peer:
            return _of_peer(bench, stack, sizes[_MAIN])
        figures, lost = [], 0
        for size in sizes:
            curve, memory_mb = _of_size(
                stack, size, (3 if size == sizes[-1] else 8) * bench.seconds
            )
            lost += 0 if size == sizes[-1] else size - curve.total
            name = "per_second" if size == sizes[_MAIN] else f"{size}.per_second"
            figures += [
                Figure(name, f"backlog of {size:,}: completed/s", curve.rate()),
                lower(f"{size}.redis_mb", "  Redis, MB", memory_mb),
            ]
            if size != sizes[0]:
                label = f"  its first {sizes[0]:,}: completed/s"
                figures.append(Figure(f"{size}.first", label, curve.rate(sizes[0])))
            stack.clear()
        return [*figures, errors(lost)]


def _of_peer(bench: Bench, stack: Stack, size: int) -> list[Figure]:
    """A peer takes no batches: its backlog is what it accepts in some seconds."""
    stack.http.post_for(5 * bench.seconds, stack.jobs, size)
    curve = _drain(stack, 4 * bench.seconds)
    return [Figure("per_second", f"backlog of {size:,}: completed/s", curve.rate()), errors(0)]


def _of_size(stack: Stack, size: int, seconds: float) -> tuple[Curve, float]:
    """How it is drained, and what it takes in Redis."""
    empty_mb = stack.redis_figures.memory_mb()
    stack.http.post_many(size)
    memory_mb = _settled_memory_mb(stack) - empty_mb
    return _drain(stack, seconds), memory_mb


def _settled_memory_mb(stack: Stack) -> float:
    """Hints are sent behind the answers: waits until no more come."""
    figures, commands = stack.redis_figures, -1
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (now := figures.commands()) - commands > _OWN_LOOKS and time.monotonic() < deadline:
        commands = now
        time.sleep(0.3)
    return figures.memory_mb()


def _drain(stack: Stack, seconds: float) -> Curve:
    """Runs a worker until nothing is open, or for so long from its first completion."""
    stack.start_worker()
    stack.worker.wait_until(stack.jobs.any_completed, "a first completed job")
    stack.jobs.wait_done(seconds)
    curve = stack.jobs.completions()
    stack.stop_worker()
    return curve
