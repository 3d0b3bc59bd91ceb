"""Accepting and working at once, under 64 connections.

accepted/s, completed/s: by the documents' own times, in the same window, two seconds after the
start. completed / accepted: 1 where no backlog builds up. CPU an event: what the web's and the
worker's processes used, divided by the events completed, the last ones included; that of Redis and
MongoDB apart. resident MB: their memory at the end of the load.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from infra.bench.figures import Figure, errors, lower
from infra.bench.load import Load
from infra.bench.stack import Bench, Stack

CONNECTIONS = 64
_RAMP_SECONDS = 2
_TAIL_SECONDS = 40.0


def measure(bench: Bench) -> list[Figure]:
    with bench.stack() as stack:
        stack.start_worker()
        stack.start_web()
        stack.warm_up()
        return _under_load(stack, bench.seconds)


def _under_load(stack: Stack, seconds: int) -> list[Figure]:
    count = stack.jobs.count()
    before = [stack.web.usage(), stack.worker.usage(), stack.servers_usage()]
    load = Load(stack.port, CONNECTIONS, _RAMP_SECONDS + seconds + 1)
    time.sleep(_RAMP_SECONDS)
    begin = datetime.now(UTC)
    time.sleep(seconds)
    end = datetime.now(UTC)
    memory_mb = stack.web.usage().resident_mb + stack.worker.usage().resident_mb
    loaded = load.finish()
    stack.jobs.wait_done(_TAIL_SECONDS)
    after = [stack.web.usage(), stack.worker.usage(), stack.servers_usage()]

    took = (end - begin).total_seconds()
    accepted = stack.jobs.within("created_at", begin, end) / took
    completed = stack.jobs.within("finished_at", begin, end) / took
    left = stack.jobs.count_open()
    done = max(1, stack.jobs.count() - count - left)
    web, worker, servers = (
        (b.cpu_seconds - a.cpu_seconds) / done * 1e6 for a, b in zip(before, after, strict=True)
    )
    return [
        Figure("accepted", "accepted/s", accepted),
        Figure("completed", "completed/s", completed),
        Figure("ratio", "completed / accepted", completed / accepted if accepted else 0.0),
        lower("cpu_us", "own CPU an event, µs", web + worker),
        lower("web_cpu_us", "  of the web", web),
        lower("worker_cpu_us", "  of the worker", worker),
        lower("server_cpu_us", "CPU of Redis and MongoDB an event, µs", servers),
        lower("memory_mb", "resident, web and worker, MB", memory_mb),
        errors(loaded.errors + left),
    ]
