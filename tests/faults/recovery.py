"""How long the system takes to recover, with default settings: see `infra/bench/recovery`."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from service.job import Hint
from tests.factories import hints_in, put_hints
from tests.faults.figures import Timed
from tests.faults.processes import send
from tests.faults.stack import EVENT_TYPES, Stack
from tests.faults.waiting import eventually

_LONG_MS = 1_500
ELSEWHERE = {"EVENT_TYPE_MODULES": f"{EVENT_TYPES},tests.faults.elsewhere"}


def worker_killed(repeat: int) -> Timed:
    """kill -9 of a worker process → its job runs again, on the same host."""
    return Timed("worker killed -> its job runs again (same host)", _killed(repeat, {}), target=10)


def worker_killed_elsewhere(repeat: int) -> Timed:
    """The same where only the end of the lease can tell."""
    return Timed(
        "worker killed -> its job runs again (other host)", _killed(repeat, ELSEWHERE), target=10
    )


def _killed(repeat: int, env: dict[str, str]) -> list[float]:
    seconds = []
    with _stack(workers=2, env=env) as stack:
        for _ in range(repeat):
            stack.wait_workers(2, 30)
            event = stack.api.post("journal.async", {"duration_ms": _LONG_MS})
            stack.kill_holder(event)
            killed = time.monotonic()
            eventually(lambda e=event: len(stack.journal.starts(e)) > 1, within=30, every=0.02)
            seconds.append(stack.journal.starts(event)[1].at - killed)
            stack.api.wait_final(event, within=30)
    return seconds


def worker_stopped(repeat: int) -> Timed:
    """SIGTERM, with no grace for what runs → the job that was given back runs elsewhere."""
    seconds = []
    with _stack(workers=2, env={"SHUTDOWN_GRACE_SECONDS": "0"}) as stack:
        for _ in range(repeat):
            stack.wait_workers(2, 30)
            event = stack.api.post("journal.async", {"duration_ms": _LONG_MS})
            worker = stack.worker_with(stack.wait_held(event))
            worker.terminate()
            stopped = time.monotonic()
            eventually(lambda e=event: len(stack.journal.starts(e)) > 1, within=30, every=0.02)
            seconds.append(stack.journal.starts(event)[1].at - stopped)
            stack.api.wait_final(event, within=30)
            eventually(lambda w=worker: w.starts > 1 and w.running, within=30)
            worker.starts = 1
    return Timed("SIGTERM -> the given-back job runs elsewhere", seconds, target=1)


def redis_back(repeat: int) -> Timed:
    """Redis takes commands again → a worker takes a message from it."""
    seconds = []
    with _stack(workers=2) as stack:
        for _ in range(repeat):
            stack.redis.kill()
            event = stack.api.post("journal.sync")
            stack.api.wait_final(event)
            stack.redis.start()
            back = time.monotonic()
            put_hints(stack.redis_client, [Hint(event, "journal.sync", "default", "normal")])
            eventually(lambda: not hints_in(stack.redis_client), within=30, every=0.02)
            seconds.append(time.monotonic() - back)
    return Timed("Redis back -> the queue moves", seconds, target=5)


def mongo_back(repeat: int) -> Timed:
    """mongod, killed with -9, is started again and takes writes → a POST is accepted."""
    seconds = []
    with _stack(workers=1) as stack:
        for _ in range(repeat):
            stack.mongo.kill()
            eventually(lambda: stack.api.try_post("journal.sync").status_code == 503, within=20)
            stack.mongo.start()
            back = time.monotonic()
            eventually(
                lambda: stack.api.try_post("journal.sync").status_code == 202,
                within=30,
                every=0.02,
            )
            seconds.append(time.monotonic() - back)
    return Timed("MongoDB back -> events are accepted", seconds, target=12)


def leader_killed(repeat: int) -> Timed:
    """kill -9 of the worker that leads the sweep → another one does."""
    seconds = []
    with _stack(workers=3, env=ELSEWHERE) as stack:

        def leader() -> int | None:
            lease = stack.database["leases"].find_one({"_id": "sweep"}) or {}
            pids = {worker["_id"]: worker["pid"] for worker in stack.alive()}
            return pids.get(lease.get("holder"))

        for _ in range(repeat):
            stack.wait_workers(3, 30)
            pid = eventually(leader, "somebody leads", within=20) or 0
            send(pid, signal.SIGKILL)
            killed = time.monotonic()
            eventually(lambda p=pid: leader() not in {None, p}, within=30, every=0.02)
            seconds.append(time.monotonic() - killed)
    return Timed("sweep leader killed -> another one leads", seconds, target=10)


def _stack(workers: int, env: dict[str, str] | None = None) -> Stack:
    folder = Path(tempfile.mkdtemp(prefix="pulsequeue-recovery-"))
    return Stack(folder, webs=1, workers=workers, env=env)


MEASUREMENTS: dict[str, Callable[[int], Timed]] = {
    f.__name__: f
    for f in (
        worker_killed,
        worker_killed_elsewhere,
        worker_stopped,
        redis_back,
        mongo_back,
        leader_killed,
    )
}
