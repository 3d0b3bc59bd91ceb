"""When a worker process gives up: stuck runs, dead threads, a parent that is gone."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import pytest

from service.worker.process import WorkerProcess
from tests.contract.worker_process import Exited, hold, status
from tests.factories import eventually, make_type


def test_a_run_stuck_beyond_its_limit_times_out_and_the_process_exits(
    process: WorkerProcess, exits: list[int]
) -> None:
    held, waiting = hold(process, max_attempts=1), hold(process)
    process._in_flight.turns.begin(held.job.id)
    held.deadline = time.monotonic() - 60
    with pytest.raises(Exited):
        process._watchdog.look()
    assert exits == [70]
    assert status(process, held) == ("failed", 1)
    assert process.store.requests.get(held.job.id)["error"]["reason"] == "timeout"
    assert status(process, waiting) == ("pending", 0)


def test_who_blocks_the_loop_pays_for_it_and_his_neighbours_do_not(
    process: WorkerProcess, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call in C can't be interrupted: it ends with its process."""
    ends = threading.Event()

    async def handler(payload: Any, _context: Any) -> None:
        if "blocks" in payload:
            ends.wait(20)
        await asyncio.sleep(20)

    monkeypatch.setattr("service.worker.running.event_loop._BLOCKED_SECONDS", 0.2)
    event_type = make_type("email", handler)
    neighbour, blocking = (
        hold(process, "email", payload=payload, event_type=event_type)
        for payload in ({}, {"blocks": True})
    )
    for held in (neighbour, blocking):
        process.runner.hand_over([], [held])
    eventually(lambda: process.runner.loop.is_blocked)
    neighbour.deadline = time.monotonic() - 60
    with pytest.raises(Exited):
        process._watchdog.look()
    ends.set()
    assert exits == [70]
    assert status(process, neighbour) == ("pending", 0)
    assert status(process, blocking) == ("pending", 1)
    (entry,) = process.store.requests.get(blocking.job.id)["history"]
    assert (entry["outcome"], "event loop" in entry["error"]["message"]) == ("timeout", True)


def test_a_run_beyond_its_limit_has_a_grace(process: WorkerProcess, exits: list[int]) -> None:
    held = hold(process)
    process._in_flight.turns.begin(held.job.id)
    held.deadline = time.monotonic() - 1
    process._watchdog.look()
    assert exits == []


def test_a_process_that_gives_up_exits_whatever_its_goodbye_comes_to(
    process: WorkerProcess, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("as asked")

    held = hold(process)
    process._in_flight.turns.begin(held.job.id)
    held.deadline = time.monotonic() - 60
    with monkeypatch.context() as broken:
        broken.setattr(process._leader, "resign", fail)
        with pytest.raises(Exited):
            process._watchdog.look()
    assert exits == [70]


@pytest.mark.parametrize("which", ["committer", "consumer", "worker"])
def test_a_process_that_lost_a_thread_exits(
    process: WorkerProcess, exits: list[int], which: str
) -> None:
    dead = threading.Thread(target=lambda: None)
    dead.start()
    dead.join(5)
    if which == "committer":
        process._committer.stop()
        process._committer.join(5)
    elif which == "consumer":
        process._worker.consumers["default"] = dead  # type: ignore[assignment]
    else:
        process._worker.workers.append(dead)  # type: ignore[arg-type]
    with pytest.raises(Exited):
        process._watchdog.look()
    assert exits == [70]


def test_a_process_whose_parent_is_gone_exits(
    process: WorkerProcess, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(Exited):
        process._watchdog.look()
    assert exits == [70]
