"""What the system does while something is wrong for long, in figures; see infra/bench/recovery."""

from __future__ import annotations

import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.factories import hints_in
from tests.faults.api import Api
from tests.faults.figures import quantile
from tests.faults.processes import send
from tests.faults.stack import QUICK, Stack
from tests.faults.waiting import eventually

_BATCH = 1_000


def redis_hung(jobs: int = 30_000, seconds: float = 12.0) -> str:
    """A backlog is worked off while clients post: normally, and with Redis stopped by SIGSTOP."""
    with _stack(workers=2) as stack:
        normal = _posts_and_completions(stack, jobs, seconds)
        stack.wait_idle(180)
        stack.redis.freeze()
        hung = _posts_and_completions(stack, jobs, seconds)
        stack.redis.thaw()
    share = hung[1] / normal[1]
    return (
        f"Redis hung: POST p99 {hung[0] * 1000:.0f} ms (normally {normal[0] * 1000:.0f} ms); "
        f"{hung[1]:.0f} jobs completed a second (normally {normal[1]:.0f}; {share:.0%})"
    )


def _posts_and_completions(stack: Stack, jobs: int, seconds: float) -> tuple[float, float]:
    """POST p99 in seconds, and jobs completed a second, meanwhile."""
    for worker in stack.workers:
        worker.freeze()
    _post_backlog(stack, jobs)
    for worker in stack.workers:
        worker.thaw()
    eventually(lambda: _completed(stack), "the first jobs complete", within=60)
    before, began = _completed(stack), time.monotonic()
    times = _post_for(stack, seconds)
    rate = (_completed(stack) - before) / (time.monotonic() - began)
    return quantile(times, 0.99), rate


def _completed(stack: Stack) -> int:
    return stack.database["jobs"].count_documents({"status": "completed"})


def _post_for(stack: Stack, seconds: float, clients: int = 4) -> list[float]:
    """How long each post took, of several clients that post one event after the other."""
    times: list[float] = []
    end = time.monotonic() + seconds

    def run() -> None:
        api = Api(stack.api.port)
        while time.monotonic() < end:
            began = time.monotonic()
            api.post("simulate")
            times.append(time.monotonic() - began)
            time.sleep(0.02)  # a client's pace
        api.close()

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _post_backlog(stack: Stack, jobs: int) -> None:
    for _ in range(jobs // _BATCH):
        stack.api.post_many([{"type": "simulate"}] * _BATCH)


def killers(count: int = 5, others: int = 100) -> str:
    """Jobs beside some that kill their process."""
    with _stack(workers=2) as stack:
        began = time.monotonic()
        bad = [stack.api.post("journal.async", {"die": True}) for _ in range(count)]
        good = [stack.api.post("journal.async", {"duration_ms": 300}) for _ in range(others)]
        ends = [stack.api.wait_final(event, within=300) for event in good]
        took = time.monotonic() - began
        failed = [stack.api.wait_final(event, within=300) for event in bad]
        statuses = Counter(seen["status"] for seen in ends)
        crashes = [sum(h["outcome"] == "crash" for h in seen["history"]) for seen in failed]
        reasons = Counter(f"{s['status']}: {(s['error'] or {}).get('reason')}" for s in failed)
        whole = time.monotonic() - began
    return (
        f"{others} jobs beside {count} that kill their process: {dict(statuses)} "
        f"after {took:.0f} s; the {count}: {dict(reasons)} after {crashes} crashes, "
        f"{whole:.0f} s in all"
    )


def frozen(times: int = 50) -> str:
    """A worker is frozen beyond its lease again and again, with a job that ends once it thaws."""
    with _stack(workers=2, env=QUICK) as stack:
        began = time.monotonic()
        changed = 0
        for _ in range(times):
            stack.wait_workers(2, 30)
            event = stack.api.post("journal.async", {"duration_ms": 400})
            pid = stack.wait_held(event)
            send(pid, signal.SIGSTOP)
            seen = stack.api.wait_final(event, within=60)
            fenced = stack.counter("_worker", "fenced")
            send(pid, signal.SIGCONT)
            eventually(lambda n=fenced: stack.counter("_worker", "fenced") > n, within=30)
            changed += stack.api.get(event) != seen
        total = stack.counter("_worker", "fenced")
    return (
        f"{times} freezes beyond the lease: {total:g} late outcomes fenced off, "
        f"{changed} results changed, {time.monotonic() - began:.0f} s"
    )


def backlog(jobs: int = 200_000, rounds: int = 5) -> str:
    """A long backlog that nobody works off: what Redis holds, and how fast a POST is.

    The median of several rounds: others use the same machine.
    """
    with _stack(workers=0) as stack:
        _post_for(stack, 2)
        empty = _p99_ms(stack, rounds)
        before = int(stack.redis_client.info("memory")["used_memory"])
        _post_backlog(stack, jobs)
        full = _p99_ms(stack, rounds)
        memory = int(stack.redis_client.info("memory")["used_memory"])
        messages = len(hints_in(stack.redis_client))
        stored = stack.database["jobs"].count_documents({"status": "pending"})
    return (
        f"{stored} pending: Redis holds {messages} messages in {memory / 2**20:.1f} MiB "
        f"(empty {before / 2**20:.1f}; the window is the most it holds, so of a million too); "
        f"POST p99 {full:.1f} ms, with an empty backlog {empty:.1f} ms ({full / empty:.2f}x)"
    )


def _p99_ms(stack: Stack, rounds: int) -> float:
    return statistics.median(quantile(_post_for(stack, 6), 0.99) * 1000 for _ in range(rounds))


def _stack(workers: int, env: dict[str, str] | None = None) -> Stack:
    folder = Path(tempfile.mkdtemp(prefix="pulsequeue-endurance-"))
    return Stack(folder, webs=1, workers=workers, env=env)


MEASUREMENTS: dict[str, Callable[[], str]] = {
    f.__name__: f for f in (redis_hung, killers, frozen, backlog)
}
