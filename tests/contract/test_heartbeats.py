"""The heartbeat of a worker process, and what depends on its arriving in time."""

from __future__ import annotations

import os
import time

from service.runtime.identity import pid_started, process_space
from service.store import WorkerStore
from service.worker.process import WorkerProcess
from tests.contract.worker_process import hold, status
from tests.factories import eventually


def test_a_process_says_who_it_is_before_it_claims_anything(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    (worker,) = workers.alive()
    assert (worker["_id"], worker["pid"]) == (process.identity.id, os.getpid())
    assert worker["pid_started"] == pid_started(os.getpid())
    assert worker["process_space"] == process_space()


def test_a_heartbeat_tells_how_many_jobs_are_held(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    hold(process)
    process._heartbeat.beat()
    assert workers.alive()[0]["processing"] == 1


def test_a_lapsed_lease_gives_back_what_has_not_started(process: WorkerProcess) -> None:
    waiting, running = hold(process), hold(process)
    process._in_flight.turns.begin(running.job.id)
    process._lease.renew(time.monotonic() - 60)
    process._heartbeat.beat()
    assert eventually(lambda: status(process, waiting) == ("pending", 0))
    assert status(process, running) == ("processing", 1)


def test_a_steady_heartbeat_gives_nothing_back(process: WorkerProcess) -> None:
    held = hold(process)
    process._heartbeat.beat()
    process._heartbeat.beat()
    assert process._committer.flush(1)
    assert status(process, held) == ("processing", 1)


def test_a_beat_missed_for_long_starts_the_patience_anew(process: WorkerProcess) -> None:
    process._heartbeat._well_since = time.monotonic() - 60
    process._heartbeat.beat()
    assert time.monotonic() - process._heartbeat._well_since > 50
    process._lease.renew(time.monotonic() - 5)
    process._heartbeat.beat()
    assert time.monotonic() - process._heartbeat._well_since < 5
