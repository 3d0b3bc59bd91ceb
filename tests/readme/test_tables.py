"""The tables and the diagram of the README and docs/ say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service import settings
from service.api import problems, queries, requests
from service.api.bodies import MOST_HELD_BYTES
from service.api.openapi_operations import OPERATIONS
from service.api.schemas import KEY_PATTERN, YEAR_MS
from service.catalog import MAX_ATTEMPTS, MAX_TIME_LIMIT_MS, MIN_TIME_LIMIT_MS, Catalog
from service.job import TRANSITIONS
from service.labels import LABELS
from service.settings import Settings
from service.store.indexes import JOB_INDEXES
from service.worker.running.results import MAX_RESULT_BYTES
from tests.readme.blocks import OPERATING, PAGES, README, ROOT, rows, section
from tests.unit.test_alerts import exported

API, DEPLOYING, DESIGN, EVENT_TYPES, GUARANTEES = (
    ROOT / "docs" / f"{name}.md"
    for name in ("api", "deploying", "design", "event-types", "guarantees")
)


def code(cell: str) -> list[str]:
    """What a cell has between backticks."""
    return re.findall(r"`([^`]+)`", cell)


# settings


def test_the_table_of_settings_is_current() -> None:
    assert section(OPERATING, "settings").strip() == settings.table(), (
        "run: python -m tests.readme.blocks"
    )


def test_the_table_of_settings_is_what_the_module_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "service.settings", "--table"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    assert printed.strip() == section(OPERATING, "settings").strip()


@pytest.mark.parametrize(
    ("page", "table", "file"),
    [(DEPLOYING, "compose", "docker-compose.yml"), (OPERATING, "procfile", "Procfile")],
)
def test_the_variables_of_a_file_are_as_told(page: Path, table: str, file: str) -> None:
    told = {(code(cells[0])[0], code(cells[1])[0]) for cells in rows(page, table)}
    assert told == set(re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / file).read_text()))


# the API


def test_the_readmes_table_has_every_operation() -> None:
    told = [name for cells in rows(README, "operations") for name in code(cells[0])]
    assert sorted(told) == sorted(f"{o.method.upper()} {o.path}" for o in OPERATIONS)


def test_every_operation_has_its_part_of_the_api_page() -> None:
    told = re.findall(r"^### `([A-Z]+ /.*)`$", API.read_text(), re.MULTILINE)
    assert sorted(told) == sorted(f"{o.method.upper()} {o.path}" for o in OPERATIONS)


def test_every_parameter_of_the_list_is_told() -> None:
    (listing,) = (o for o in OPERATIONS if o.id == "listEvents")
    part = API.read_text().partition("### `GET /events`\n")[2].partition("\n### ")[0]
    assert set(listing.parameters) <= set(code(part))


def test_the_problems_are_as_told() -> None:
    told = {code(cells[0])[0]: int(cells[1]) for cells in rows(API, "problems")}
    kinds = [*problems._KINDS.values(), problems._UNEXPECTED]
    assert told == {kind.slug: kind.status for kind in kinds}


def test_the_limits_are_as_told() -> None:
    told = {cells[0]: (cells[1], *code(cells[2])) for cells in rows(API, "limits")}
    s = Settings()
    longest_key = re.findall(r"\{1,(\d+)\}", KEY_PATTERN)[0]
    assert told == {
        "body of one event": (f"{s.max_body_bytes:,} bytes", "MAX_BODY_BYTES"),
        "body of a batch": (f"{s.max_batch_bytes:,} bytes", "MAX_BATCH_BYTES"),
        "events in a batch": (f"1 to {s.max_batch_events:,}", "MAX_BATCH_EVENTS"),
        "nesting of a body": (f"{s.max_nesting}", "MAX_NESTING"),
        "bodies held by one web process at a time": (f"{MOST_HELD_BYTES:,} bytes",),
        "pending events": (f"{s.max_backlog_jobs:,}", "MAX_BACKLOG_JOBS"),
        "requests that wait, per web process": (f"{s.max_waiters:,}", "MAX_WAITERS"),
        "time for a request's headers, and then for its body": (
            f"{s.body_timeout_seconds:.0f} s",
            "BODY_TIMEOUT_SECONDS",
        ),
        "integers": ("64 bits, signed",),
        "`max_attempts`": (f"1 to {MAX_ATTEMPTS}",),
        "`time_limit_ms`": (f"{MIN_TIME_LIMIT_MS} to {MAX_TIME_LIMIT_MS:,}",),
        "`delay_ms`, and `run_at` ahead": (f"{YEAR_MS:,} ms, a year",),
        "`Idempotency-Key`": (f"1 to {longest_key} visible ASCII characters",),
        **{f"`{label.name}`": (label.rule,) for label in LABELS if label.posted},
        "`Prefer: wait`": (f"{requests.MAX_WAIT_SECONDS} s",),
        "`limit` of a page": (f"1 to {queries.MAX_LIMIT}",),
        "a handler's result": (f"{MAX_RESULT_BYTES:,} bytes",),
    }


# event types


def test_the_options_of_an_event_type_are_as_told() -> None:
    catalog = Catalog()
    catalog.event_type("x")(lambda payload, context: None)
    (declared,) = catalog
    text, backoff = EVENT_TYPES.read_text(), declared.backoff
    waits = f"Backoff(first_ms={backoff.first_ms:_}, cap_ms={backoff.cap_ms:_})"
    assert f"| `max_attempts` | {declared.max_attempts} | 1 to {MAX_ATTEMPTS};" in text
    assert f"| `backoff` | `{waits}` |" in text
    limits = f"{MIN_TIME_LIMIT_MS} to {MAX_TIME_LIMIT_MS:,}"
    assert f"| `time_limit_ms` | {declared.time_limit_ms:,} | {limits}," in text
    assert f"| `queue` | `{declared.queue}` |" in text


# operating


def test_the_metrics_are_as_told() -> None:
    found = exported()
    told = {}
    for cells in rows(OPERATING, "metrics"):
        name, labels = re.fullmatch(r"(\w+)(?:\{([\w,]+)\})?", code(cells[0])[0]).groups()
        told[name] = set(labels.split(",")) if labels else set()
    parts = ("_bucket", "_sum", "_count")
    histograms = {n.removesuffix(p) for n in found for p in parts if n.endswith(p)}
    for name, labels in told.items():
        shown = f"{name}_count" if name in histograms else name
        assert found[shown] == labels
    single = {n for n in found if not n.endswith((*parts, "_created"))}
    assert told.keys() == single | histograms


# guarantees


def test_each_guarantee_names_tests_that_there_are() -> None:
    text = GUARANTEES.read_text()
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert len(named) > 15
    assert named <= there
    for row in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        if not row.startswith(("| what happens", "| ---")):
            assert "`test_" in row or "**not shown**" in row


# design


def test_the_diagram_has_every_transition() -> None:
    drawn = re.findall(r"^ +(\w+) --> (\w+):", section(DESIGN, "states"), re.MULTILINE)
    allowed = [(str(a), str(b)) for a, following in TRANSITIONS.items() for b in following]
    assert sorted(drawn) == sorted(allowed)


def test_every_index_is_told() -> None:
    told = [code(cells[0])[0] for cells in rows(DESIGN, "indexes")]
    assert sorted(told) == sorted(index.document["name"] for index in JOB_INDEXES)
