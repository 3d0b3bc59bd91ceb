"""What the tests of a worker process's parts share. Its fixtures are in conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from service.worker.process import WorkerProcess
from tests.factories import make_held, new_job_document

MakeProcess = Callable[..., WorkerProcess]


class Exited(BaseException):
    """Raised in place of the end of the process that runs the tests."""


def hold(process: WorkerProcess, name: str = "report", event_type: Any = None, **event: Any) -> Any:
    """A job that the process has claimed and not started."""
    document = new_job_document(at=process.clock.now(), type=name, **event)
    process.store.new_jobs.accept([document])
    (job,) = process.store.claims.claim([document["_id"]], process.identity.id, process.clock.now())
    event_type = event_type or process._catalog.get(name)
    held = replace(make_held(event_type), job=job)
    process._in_flight.add([held])
    return held


def status(process: WorkerProcess, held: Any) -> tuple[str, int]:
    document = process.store.requests.get(held.job.id)
    return document["status"], document["attempts"]


def run_beat(process: WorkerProcess, name: str) -> None:
    """One turn of one beat, as the scheduler gives it."""
    (beat,) = [beat for beat in process.beats() if beat.name == name]
    if beat.is_wanted:
        beat.run()
