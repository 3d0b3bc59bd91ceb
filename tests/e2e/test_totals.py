"""`/metrics` counts what MongoDB holds, over processes, kills and restarts."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Process, send
from tests.faults.stack import Stack
from tests.faults.waiting import eventually

pytestmark = [pytest.mark.e2e]
_EVENTS, _BATCH = 5_000, 500
_MOST_UNCOUNTED_A_KILL = 500
"""A process that is killed loses the counts of the one batch that was under way."""


@pytest.mark.timeout(150)
def test_totals_are_those_of_the_documents_over_kills_and_restarts(tmp_path: Path) -> None:
    with Stack(tmp_path, webs=2, workers=2, env={"SHUTDOWN_GRACE_SECONDS": "2"}) as system:
        killed = 0
        for batch in range(_EVENTS // _BATCH):
            web = system.webs[batch % 2]
            eventually(system.api_of(web).is_ready, "the web is ready", within=20)
            system.api_of(web).post_many([_event(i) for i in range(_BATCH)])
            if batch in (2, 5):
                killed += _kill_inner(system.workers[batch % 2])
            elif batch == 7:
                killed += _kill_inner(system.webs[0])
            elif batch in (3, 6):
                _restart(system, system.workers[0] if batch == 3 else system.webs[1])
        system.wait_ready()
        system.wait_idle(within=60)
        missing = _settled(lambda: _uncounted(system))
        print(f"killed {killed}; documents minus /metrics: {missing}")
        assert killed == 3
        assert all(0 <= n <= killed * _MOST_UNCOUNTED_A_KILL for n in missing.values()), missing


def _settled(look: Callable[[], dict[str, int]], seconds: float = 2.5) -> dict[str, int]:
    """What is still missing when no count is under way any more: `/metrics` may be a second old."""
    deadline = time.monotonic() + seconds
    while any((missing := look()).values()) and time.monotonic() < deadline:
        time.sleep(0.25)
    return missing


def _event(number: int) -> dict[str, Any]:
    payload = {"duration_ms": number % 40, "fail_times": int(number % 25 == 0)}
    return {"type": "simulate", "payload": payload}


def _kill_inner(process: Process) -> int:
    send(process.children()[0], signal.SIGKILL)
    return 1


def _restart(system: Stack, process: Process) -> None:
    starts = process.starts
    process.terminate()
    eventually(lambda: process.starts > starts, "it is started again", within=15)
    system.wait_ready()


def _uncounted(system: Stack) -> dict[str, int]:
    jobs = list(system.database["jobs"].find({}, {"status": 1, "attempts": 1}))
    statuses = Counter(job["status"] for job in jobs)
    held = {
        "received": len(jobs),
        "completed": statuses["completed"],
        "failed": statuses["failed"],
        "retried": sum(job["attempts"] - 1 for job in jobs),
    }
    counted = system.api.metrics()
    return {name: count - counted[name] for name, count in held.items()}
