"""The logs of a running system: each line a JSON object with the fields that one searches by."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Process, send
from tests.faults.stack import QUICK, Stack
from tests.faults.waiting import eventually

pytestmark = pytest.mark.e2e
HOSTILE = 'end of line\r\n{"event":"forged","level":"critical"}\x1b[31m red \u2028\x9b2J'
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {
        **QUICK,
        "MONGODB_TIMEOUT_MS": "2000",
        "EVENT_TYPE_MODULES": "tests.operations.loud_types",
    }
    with Stack(tmp_path_factory.mktemp("logs"), env=env) as stack:
        yield stack


def lines(process: Process) -> list[dict[str, Any]]:
    """All that a process has logged; fails where a line is no JSON object."""
    whole = process.log.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.split(b"\n") if line]


def line(process: Process, event: str, **fields: Any) -> dict[str, Any]:
    """The last line that begins so and has these fields; waits for it."""

    def found() -> dict[str, Any] | None:
        alike = [one for one in lines(process) if str(one["event"]).startswith(event)]
        exact = [one for one in alike if all(one.get(k) == v for k, v in fields.items())]
        return exact[-1] if exact else None

    return eventually(found, f"a line {event!r} with {fields}", within=20) or {}


def test_a_web_process_says_when_it_is_ready(stack: Stack) -> None:
    (web,) = stack.webs
    ready = line(web, "web is ready")
    assert (ready["level"], ready["logger"]) == ("info", "service.web.preparation")
    assert line(web, "Listening at")["logger"] == "gunicorn.error"


def test_a_worker_says_when_it_is_ready_and_who_it_is(stack: Stack) -> None:
    (worker,) = stack.workers
    (alive,) = stack.alive()
    assert line(worker, "worker is ready")["worker"] == alive["_id"]
    assert line(worker, "Dramatiq '2.2.1' is booting up.")["logger"] == "dramatiq.MainProcess"


def test_a_failed_attempt_and_a_dead_letter_carry_all_that_leads_to_them(stack: Stack) -> None:
    (worker,) = stack.workers
    (alive,) = stack.alive()
    answer = stack.api.http.post(
        "/events",
        json={"type": "loud.fail", "payload": {"text": "no"}},
        headers={"X-Request-Id": "order-4711", "Traceparent": TRACE},
    )
    event = answer.json()["id"]
    shared = {"event_id": event, "type": "loud.fail", "request_id": "order-4711"}
    failed = line(worker, "attempt failed", **shared, traceparent=TRACE)
    assert (failed["level"], failed["attempt"], failed["worker"]) == ("info", 1, alive["_id"])
    assert failed["exception"].endswith("RuntimeError: no")
    letter = line(worker, "job failed for good", **shared, traceparent=TRACE)
    assert (letter["level"], letter["attempts"]) == ("error", 1)
    assert (letter["reason"], letter["error"]) == ("error", "RuntimeError: no")


def test_a_hostile_payload_stays_one_line(stack: Stack) -> None:
    (worker,) = stack.workers
    event = stack.api.post("loud.fail", {"text": HOSTILE})
    letter = line(worker, "job failed for good", event_id=event)
    assert letter["error"] == f"RuntimeError: {HOSTILE}"
    assert not [one for one in lines(worker) if one["event"] == "forged"]
    assert worker.log.read_text().isascii()


def test_requests_that_mongodb_does_not_answer_are_one_line_together(stack: Stack) -> None:
    (web,) = stack.webs
    stack.mongo.freeze()
    try:
        answer = stack.api.try_post("loud.fail", {"text": "no"})
        assert answer.status_code == 503
        down = line(web, "MongoDB is unavailable")
        assert (down["level"], down["logger"]) == ("warning", "service.concurrency.circuit_breaker")
    finally:
        stack.mongo.thaw()
    eventually(lambda: stack.api.try_post("simulate").status_code == 202, "events are accepted")
    assert line(web, "MongoDB is available after")["level"] == "info"
    stack.wait_ready()


def test_the_end_of_a_process_and_the_rescue_of_its_job_are_told(stack: Stack) -> None:
    (worker,) = stack.workers
    event = stack.api.post("loud.wait", {"seconds": 2})
    stack.api.wait_status(event, "processing")
    (alive,) = stack.alive()
    send(alive["pid"], signal.SIGKILL)
    died = line(worker, "Worker with PID")
    assert (died["level"], died["logger"]) == ("critical", "dramatiq.MainProcess")
    assert line(worker, "rescued 1 jobs", worker=alive["_id"])["level"] == "warning"
    assert stack.api.wait_final(event, within=30)["status"] == "completed"


def test_no_line_holds_a_password(stack: Stack, tmp_path: Path) -> None:
    with stack.only_workers(0):
        worker = stack.add_worker(
            MONGODB_URI="mongodb://me:hunter2@127.0.0.1:1/x", MONGODB_TIMEOUT_MS="200"
        )
        assert "mongodb://me:***@127.0.0.1:1/x" in line(worker, "waiting for MongoDB")["event"]
        assert "hunter2" not in worker.log.read_text()
        stack.remove(worker)
