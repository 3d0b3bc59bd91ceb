"""What stored finished jobs cost: the same work beside a million of them, and beside 1,000.

Two stacks are up at once and take turns, so that noise hits both alike. Each figure is the cost
(the time it takes) with many stored divided by that with few: 1.00 means that they cost nothing.
POST: 32 connections for a second at a time. claim and finish: 2,000 jobs by one worker process,
posted while it stands still. GET a new one: of the latest 50; any: of all that are stored, which
may lie on the disk. Lists: 50 a page. sweep: one tick, in this process. /metrics: after its values
have grown old, so that they are read anew.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection

from infra.bench.figures import Figure, errors, lower
from infra.bench.inside import sweep_on
from infra.bench.load import Load
from infra.bench.over_http import ask
from infra.bench.processes import BenchError
from infra.bench.stack import Bench, Stack
from infra.bench.stored import store_finished
from service.settings import Settings

_FEW = 1_000  # a page of a list must be full
_CONNECTIONS, _DRAINED, _PAGE = 32, 2_000, 50
_METRICS_AGE_SECONDS = 1.1  # /metrics reads its values anew after a second
_READS_A_TURN = 15


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two stacks, and ways to ask it."""

    stack: Stack
    connection: HTTPConnection
    sweep: Callable[[], None]
    stored: list[str]
    latest: list[str] = field(default_factory=list)

    def get(self, path: str) -> float:
        """Milliseconds to the whole answer."""
        began = time.perf_counter()
        status, answer = ask(self.connection, "GET", path)
        took = time.perf_counter() - began
        if status != 200:
            raise BenchError(f"GET {path}: {status} {answer[:300]!r}")
        return took * 1e3

    def get_any(self) -> float:
        return self.get(f"/events/{random.choice(self.stored)}")

    def get_latest(self) -> float:
        if not self.latest:
            page = json.loads(ask(self.connection, "GET", f"/events?limit={_PAGE}")[1])
            self.latest.extend(event["id"] for event in page["events"])
        return self.get(f"/events/{random.choice(self.latest)}")

    def tick(self) -> float:
        began = time.perf_counter()
        self.sweep()
        return (time.perf_counter() - began) * 1e3

    def post(self) -> float:
        """Microseconds a POST."""
        return 1e6 / Load(self.stack.port, _CONNECTIONS, 1).finish().per_second

    def claim_and_finish(self) -> float:
        """Microseconds a job."""
        self.stack.worker.freeze()
        newest = self.stack.jobs.collection.find_one({}, {"_id": 1}, sort=[("_id", -1)]) or {}
        try:
            self.stack.http.post_many(_DRAINED)
        finally:
            self.stack.worker.thaw()
        if not self.stack.jobs.wait_done(30):
            raise BenchError("a backlog of 2,000 was not finished in 30 s")
        return 1e6 / self.stack.jobs.completions(_id={"$gt": newest["_id"]}).rate()


Pair = tuple[Side, Side]


def measure(bench: Bench) -> list[Figure]:
    with ExitStack() as opened:
        few = _side(bench, opened, _FEW)
        many = _side(bench, opened, bench.growth_jobs)
        return [*_measure_pair((few, many), bench), errors(0)]


def _side(bench: Bench, opened: ExitStack, count: int) -> Side:
    stack = opened.enter_context(bench.stack())
    stack.start_web()  # it creates the indexes
    stored = store_finished(stack.jobs.collection, count, Settings.from_env())
    connection = opened.enter_context(stack.http.connection())
    return Side(stack, connection, opened.enter_context(sweep_on(stack)), stored)


def _measure_pair(pair: Pair, bench: Bench) -> list[Figure]:
    turns = 1 if bench.quick else 8
    stored = f"{bench.growth_jobs:,}"
    _alternate(pair, Side.post, 1)  # warm up
    posts = _alternate(pair, Side.post, turns)
    for side in pair:
        side.stack.redis.flushdb()
        side.stack.jobs.collection.delete_many({"status": "pending"})
        side.stack.start_worker()
        side.stack.wait_workers()
    _alternate(pair, Side.claim_and_finish, 1)  # warm up
    drains = _alternate(pair, Side.claim_and_finish, turns)
    for side in pair:
        side.stack.mongo.admin.command("fsync")
    return [
        *_compared("post", f"{stored} stored: POST", posts, "us"),
        *_compared("claim", "  claim and finish", drains, "us"),
        *_reads(pair, turns),
    ]


def _reads(pair: Pair, turns: int) -> list[Figure]:
    kinds: dict[str, tuple[str, Callable[[Side], float], int]] = {
        "metrics": ("  GET /metrics", lambda side: side.get("/metrics"), 1),
        "latest": ("  GET a new one", Side.get_latest, _READS_A_TURN),
        "any": ("  GET any", Side.get_any, _READS_A_TURN),
        "list": (
            "  list, first page",
            lambda side: side.get(f"/events?limit={_PAGE}"),
            _READS_A_TURN,
        ),
        "status": (
            "  list by status",
            lambda side: side.get(f"/events?status=completed&limit={_PAGE}"),
            _READS_A_TURN,
        ),
        "sweep": ("  sweep", Side.tick, _READS_A_TURN),
    }
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in kinds}
    for turn in range(turns + 1):
        next_turn = time.monotonic() + _METRICS_AGE_SECONDS
        for name, (_, read, count) in kinds.items():
            for kept, new in zip(times[name], _alternate(pair, read, count, turn), strict=True):
                kept.extend(new if turn else [])  # the first turn warms up
        time.sleep(max(0.0, next_turn - time.monotonic()))
    return [f for name in kinds for f in _compared(name, kinds[name][0], times[name], "ms")]


def _alternate(
    pair: Pair, measured: Callable[[Side], float], times: int, begin: int = 0
) -> tuple[list[float], list[float]]:
    """So many values of each side, taken in turns: AB, BA, AB, ... (with an odd `begin`: BA first,
    for who comes first after a pause pays for the waking up)."""
    few: list[float] = []
    many: list[float] = []
    for turn in range(begin, begin + times):
        both = [(few, pair[0]), (many, pair[1])]
        for values, side in both if turn % 2 == 0 else reversed(both):
            values.append(measured(side))
    return few, many


def _compared(
    name: str, label: str, values: tuple[Sequence[float], Sequence[float]], unit: str
) -> list[Figure]:
    few, many = (statistics.median(v) for v in values)
    return [
        lower(f"{name}.ratio", f"{label}, times the cost", many / few),
        lower(f"{name}.few_{unit}", f"{label} with few, {unit}", few, detail=True),
        lower(f"{name}.many_{unit}", f"{label} with many, {unit}", many, detail=True),
    ]
