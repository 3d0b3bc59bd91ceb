"""How fast events are accepted one by one, while no worker runs.

POST/s: `POST /events` answered a second, each after MongoDB's word by majority and journal. p50 and
p99: milliseconds from a request to its answer. Each connection posts as fast as it is answered.
"""

from __future__ import annotations

from infra.bench.figures import Figure, errors, lower
from infra.bench.load import Load
from infra.bench.stack import Bench

CONNECTIONS = (8, 32, 128)


def measure(bench: Bench) -> list[Figure]:
    figures, bad = [], 0
    with bench.stack() as stack:
        stack.start_web()
        stack.warm_up()
        for n in CONNECTIONS:
            loaded = Load(stack.port, n, bench.seconds).finish()
            figures += [
                Figure(f"{n}.per_second", f"{n} connections: POST/s", loaded.per_second),
                lower(f"{n}.p50_ms", "  p50, ms", loaded.p50_ms),
                lower(f"{n}.p99_ms", "  p99, ms", loaded.p99_ms),
            ]
            bad += loaded.errors
    return [*figures, errors(bad)]
