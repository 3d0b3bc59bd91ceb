"""The README's event types, in a folder outside of the repository, run by a worker that was started
by hand with the README's own command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.stack import Stack
from tests.faults.waiting import eventually
from tests.readme.blocks import README, ROOT, files

pytestmark = pytest.mark.e2e
TEXT = README.read_text()
MODULES = "shop.mail,shop.orders"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yours")
    files(TEXT, folder)
    return folder


@pytest.fixture(scope="module")
def stack(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A system without workers, whose web knows the types."""
    env = {"EVENT_TYPE_MODULES": MODULES, "PYTHONPATH": str(folder)}
    with Stack(tmp_path_factory.mktemp("stack"), workers=0, env=env) as stack:
        yield stack


@pytest.fixture(scope="module")
def worker(stack: Stack, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The README's command, with the path in the place of its own."""
    (command,) = re.findall(r"^EVENT_TYPE_MODULES=.* dramatiq actors.*$", TEXT, re.MULTILINE)
    assert f"EVENT_TYPE_MODULES={MODULES} PYTHONPATH=/path/to/yours" in command
    with (folder / "worker.log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {command.replace('/path/to/yours', str(folder))}"],
            cwd=ROOT,
            env={
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "REDIS_URL": stack.redis.url,
                "MONGODB_URI": stack.mongo.url,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def run(stack: Stack, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    return stack.api.wait_final(stack.api.post(kind, payload), within=30)


def test_a_type_of_ones_own_runs(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    seen = run(stack, "welcome", {"to": "ada@example.com"})
    assert seen["status"] == "completed"
    assert seen["result"] == {"sent_to": "ada@example.com", "attempt": 1}


def test_its_schema_is_checked_at_the_edge(stack: Stack) -> None:
    answer = stack.api.try_post("welcome", {"to": "nobody"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/payload/to"


def test_its_payload_is_in_the_description(stack: Stack) -> None:
    description = stack.api.http.get("/openapi.json").text
    assert "welcome" in description
    assert "export_orders" in description


def test_a_rejection_is_final(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    seen = run(stack, "welcome", {"to": "ada@gone.example"})
    assert (seen["status"], seen["attempts"]) == ("failed", 1)
    assert seen["error"] == {"reason": "rejected", "message": "there is no such mailbox"}


def test_an_asynchronous_type_in_a_queue_of_its_own_is_retried_when_it_says(
    stack: Stack, worker: subprocess.Popen[bytes]
) -> None:
    seen = run(stack, "export_orders", {"pages": 2, "busy": True})
    assert (seen["status"], seen["attempts"]) == ("completed", 2)
    assert seen["result"] == {"exported": 2, "key": seen["id"]}
    assert seen["history"][0]["error"]["message"] == "the partner is busy"


def test_a_handler_that_sees_the_cancellation_stops(
    stack: Stack, worker: subprocess.Popen[bytes]
) -> None:
    event = stack.api.post("export_orders", {"pages": 600})
    stack.api.wait_status(event, "processing")
    assert stack.api.http.post(f"/events/{event}/cancel").status_code == 202
    assert stack.api.wait_final(event)["status"] == "cancelled"


def test_it_ends_in_order(stack: Stack, worker: subprocess.Popen[bytes], folder: Path) -> None:
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert "worker has stopped" in (folder / "worker.log").read_text()
    eventually(lambda: stack.alive() == [], "no worker is alive")
