"""The event types that the pages show, in a folder outside of the repository: their own tests pass,
and a worker that was started by hand with the page's own command runs them."""

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
from tests.readme.blocks import ROOT, all_blocks, files

BLOCKS = all_blocks()
MODULES = "shop.mail,shop.orders"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yours")
    assert len(files(folder)) == 3
    return folder


@pytest.fixture(scope="module")
def stack(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A system without workers, whose web knows the types."""
    env = {"EVENT_TYPE_MODULES": MODULES, "PYTHONPATH": str(folder)}
    with Stack(tmp_path_factory.mktemp("stack"), workers=0, env=env) as stack:
        yield stack


@pytest.fixture(scope="module")
def worker(stack: Stack, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The page's command, with the path in the place of its own."""
    text = "".join(block.text for block in BLOCKS)
    (command,) = re.findall(r"^EVENT_TYPE_MODULES=.* dramatiq actors.*$", text, re.MULTILINE)
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


def test_the_examples_test_passes(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "shop"],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_first_example_has_ten_lines_of_its_own() -> None:
    (mail,) = [block for block in BLOCKS if block.note == "shop/mail.py"]
    lines = [line for line in mail.text.splitlines() if line.strip()]
    imports = [line for line in lines if line.startswith(("from ", "import "))]
    assert len(lines) - len(imports) <= 10


# run by a worker


@pytest.mark.e2e
def test_a_type_of_ones_own_runs(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    seen = run(stack, "welcome", {"to": "ada@example.com"})
    assert seen["status"] == "completed"
    assert seen["result"] == {"sent_to": "ada@example.com", "attempt": 1}


@pytest.mark.e2e
def test_its_schema_is_checked_at_the_edge(stack: Stack) -> None:
    answer = stack.api.try_post("welcome", {"to": "nobody"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/payload/to"


@pytest.mark.e2e
def test_its_payload_is_in_the_description(stack: Stack) -> None:
    description = stack.api.http.get("/openapi.json").text
    assert "welcome" in description
    assert "export_orders" in description


@pytest.mark.e2e
def test_a_rejection_is_final(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    seen = run(stack, "welcome", {"to": "ada@gone.example"})
    assert (seen["status"], seen["attempts"]) == ("failed", 1)
    assert seen["error"] == {"reason": "rejected", "message": "there is no such mailbox"}


@pytest.mark.e2e
def test_an_asynchronous_type_in_a_queue_of_its_own_is_retried_when_it_says(
    stack: Stack, worker: subprocess.Popen[bytes]
) -> None:
    seen = run(stack, "export_orders", {"pages": 2, "busy": True})
    assert (seen["status"], seen["attempts"]) == ("completed", 2)
    assert seen["result"] == {"exported": 2, "key": seen["id"]}
    assert seen["history"][0]["error"]["message"] == "the partner is busy"


@pytest.mark.e2e
def test_a_handler_that_sees_the_cancellation_stops(
    stack: Stack, worker: subprocess.Popen[bytes]
) -> None:
    event = stack.api.post("export_orders", {"pages": 600})
    stack.api.wait_status(event, "processing")
    assert stack.api.http.post(f"/events/{event}/cancel").status_code == 202
    assert stack.api.wait_final(event)["status"] == "cancelled"


@pytest.mark.e2e
def test_it_ends_in_order(stack: Stack, worker: subprocess.Popen[bytes], folder: Path) -> None:
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert "worker has stopped" in (folder / "worker.log").read_text()
    eventually(lambda: stack.alive() == [], "no worker is alive")
