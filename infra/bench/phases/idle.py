"""What one web and one worker process cost while nothing happens.

Redis commands/s: all that Redis carries out, for one worker process. CPU %: of one core.
"""

from __future__ import annotations

import time

from infra.bench.figures import Figure, lower
from infra.bench.stack import Bench

_SETTLE_SECONDS = 2
_SECONDS, _QUICK_SECONDS = 15, 4


def measure(bench: Bench) -> list[Figure]:
    with bench.stack() as stack:
        stack.start_worker()
        stack.start_web()
        stack.warm_up()
        time.sleep(_SETTLE_SECONDS)
        commands = stack.redis_figures.commands()
        web, worker = stack.web.usage(), stack.worker.usage()
        began = time.monotonic()
        time.sleep(_QUICK_SECONDS if bench.quick else _SECONDS)
        seconds = time.monotonic() - began
        commands = stack.redis_figures.commands() - commands - 1  # our own first look is in it
        web_cpu = stack.web.usage().cpu_seconds - web.cpu_seconds
        worker_cpu = stack.worker.usage().cpu_seconds - worker.cpu_seconds
    return [
        lower("redis_per_second", "Redis commands/s", commands / seconds),
        lower("worker_cpu_percent", "CPU of the worker, %", worker_cpu / seconds * 100),
        lower("web_cpu_percent", "CPU of the web, %", web_cpu / seconds * 100),
    ]
