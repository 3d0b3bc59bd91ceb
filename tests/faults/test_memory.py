"""What a worker process holds in memory is bounded, however large the events that wait."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from service.settings import Settings
from tests.factories import ago, new_job_document
from tests.faults.processes import Process
from tests.faults.stack import Stack
from tests.faults.waiting import eventually

MOST_MIB = 70 + 2 * Settings().max_claimed_bytes // 1_048_576
"""A process with nothing to do has up to 70; there are replies of the server as well."""
OBJECTS = [{"name": f"item {i}", "count": i, "tags": ["a", "b"]} for i in range(16_000)]
"""A million bytes as JSON, nine million as Python objects."""


def store_events(stack: Stack, count: int, payload: dict[str, Any], at: datetime) -> None:
    """Puts events into the database as the web would; the sweep dispatches them."""
    for _ in range(count // 20):
        event = {"type": "journal.async", "payload": payload}
        documents = [new_job_document(at=at, **event) for _ in range(20)]
        stack.database["jobs"].insert_many(documents)


def peak_mib(worker: Process) -> float:
    """The most memory that any of the worker's processes ever had."""
    peaks = []
    for pid in worker.family():
        status = Path(f"/proc/{pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        peaks.append(int(line.split()[1]) / 1024)
    return max(peaks)


def completed(stack: Stack) -> int:
    return stack.database["jobs"].count_documents({"status": "completed"})


def test_a_backlog_of_large_events_behind_tiny_ones_is_claimed_as_memory_allows(
    stack: Stack,
) -> None:
    with stack.only_workers(0):
        store_events(stack, 2_000, {}, ago(120))
        store_events(stack, 60, {"pad": OBJECTS, "duration_ms": 1_500}, ago(60))
        worker = stack.add_worker()
        eventually(lambda: completed(stack) == 2_060, "all are done", within=50)
        assert peak_mib(worker) < MOST_MIB
