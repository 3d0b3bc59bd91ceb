"""What the README shows is so: its commands, programs, queries, tables and links."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mongomock
import pytest
import yaml
from pymongo.database import Database

from service import settings
from service.catalog import Catalog
from service.job import Outcome
from service.store import JobStore, WorkerStore
from tests import documents
from tests.factories import (
    NOW,
    accept,
    ago,
    ahead,
    claimed,
    failed,
    finish,
    make_worker,
    new_job_document,
)
from tests.faults.stack import QUICK, Stack
from tests.readme.blocks import README, ROOT, blocks, files, section
from tests.readme.mongo_shell import Query, queries
from tests.readme.walk import PROGRAMS, Walk

TEXT = README.read_text()
TAKEN = [block for block in blocks(TEXT) if block.what in {"run", "shows"}]
QUERIES = [q for block in blocks(TEXT) if block.what == "mongo" for q in queries(block.text)]


# the blocks that are run


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("readme"), env=QUICK) as stack:
        yield stack


@pytest.fixture(scope="module")
def walk(stack: Stack) -> Walk:
    env = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "REDIS_URL": stack.redis.url,
        "MONGODB_URI": stack.mongo.url,
    }
    return Walk(f"http://localhost:{stack.webs[0].env['PORT']}", env, ROOT)


@pytest.mark.e2e
@pytest.mark.parametrize("block", TAKEN, ids=lambda b: f"line-{b.line}-{b.what}-{b.language}")
def test_a_block_does_what_it_says(walk: Walk, block: Any) -> None:
    program = PROGRAMS[block.language][0] if block.what == "run" else "bash"
    needed = "curl" if "curl " in block.text and block.language == "sh" else program
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not on PATH")
    walk.take(block)


def test_the_five_calls_are_there_in_three_languages() -> None:
    for language, comment in (("sh", "#"), ("python", "#"), ("javascript", "//")):
        numbered = [
            re.findall(rf"^ *{comment} (\d)\. ", block.text, re.MULTILINE)
            for block in TAKEN
            if block.language == language
        ]
        assert ["1", "2", "3", "4", "5"] in numbered


# the queries


@pytest.fixture
def written(database: Database[Any], store: JobStore, workers: WorkerStore) -> Database[Any]:
    """One job of each kind that the queries look for."""
    event = {"type": "simulate"}
    accept(store, at=ago(60), **event)
    accept(store, at=ago(60), run_at=ahead(3_600), **event)
    accept(store, **event, idempotency_key="order-4711", fingerprint="x")
    claimed(store, **event, at=ago(30))
    finish(store, claimed(store, **event, at=ago(9)), result={"ok": True})
    failed(store, **event)
    suspect = claimed(store, **event)
    finish(store, replace(suspect, company=8), Outcome.UNSTARTED)
    workers.beat(make_worker(), 3)
    return database


def on_mongomock() -> Database[Any]:
    """The same jobs there, which can't be written by the store."""
    event = {"type": "simulate"}
    database = mongomock.MongoClient(tz_aware=True)["readme"]
    jobs = [
        new_job_document(at=ago(60), **event),
        new_job_document(at=ago(60), run_at=ahead(3_600), **event),
        new_job_document(**event, idempotency_key="order-4711", fingerprint="x"),
        documents.processing(**event, at=ago(30)),
        documents.ended(**event, began=ago(9), result={"ok": True}),
        documents.ended(Outcome.REJECTED, **event, message="no"),
        documents.suspect(8, **event),
    ]
    documents.insert(database, jobs)
    return database


@pytest.fixture
def asked(request: pytest.FixtureRequest) -> Database[Any]:
    """mongomock, or real MongoDB."""
    real = request.param == "mongodb"
    return request.getfixturevalue("written") if real else on_mongomock()


ASKED = [
    pytest.param("mongodb", query, id=query.comment, marks=pytest.mark.mongodb) for query in QUERIES
] + [
    pytest.param("mongomock", query, id=f"{query.comment}, on mongomock")
    for query in QUERIES
    if "$$NOW" not in str(query.calls)  # it does not know that
]


@pytest.mark.parametrize(("asked", "query"), ASKED, indirect=["asked"])
def test_a_query_finds_what_it_says(asked: Database[Any], query: Query) -> None:
    if "_id" in query.calls[0][1][0]:  # the README's id is of another day
        query.calls[0][1][0]["_id"] = asked["jobs"].find_one()["_id"]
    found = query.run(asked)
    expected = {
        "1": lambda: len(found) == 1,
        "2": lambda: found[0]["idempotency_key"] == "order-4711",
        "3": lambda: [(f["_id"], f["jobs"]) for f in found] == [("default", 3)],
        "4": lambda: found[0]["next_attempt_at"] == ago(60) and len(found) == 3,
        "5": lambda: [f["started_at"] for f in found] == [ago(30)],
        "6": lambda: found == [{"_id": {"type": "simulate", "reason": "rejected"}, "jobs": 1}],
        "7": lambda: [(f["_id"], f["jobs"]) for f in found] == [("no", 1)],
        "8": lambda: [f["company"] for f in found] == [8],
        "9": lambda: [f["seconds"] for f in found] == [(NOW - ago(9)).total_seconds()],
        "10": lambda: (found[0]["processing"], found[0]["age_seconds"] < 60) == (3, True),
    }
    assert expected[query.comment.partition(".")[0]](), found


def test_there_are_ten_queries() -> None:
    assert [query.comment.partition(".")[0] for query in QUERIES] == [str(n) for n in range(1, 11)]


# the example of an event type


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder outside of the repository, with the files that the README shows."""
    assert len(files(TEXT, tmp_path)) == 3
    return tmp_path


def test_the_examples_test_passes(example: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "shop"],
        cwd=example,
        env=os.environ | {"PYTHONPATH": f"{example}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_first_example_has_ten_lines_of_its_own() -> None:
    (mail,) = [block for block in blocks(TEXT) if block.path == "shop/mail.py"]
    lines = [line for line in mail.text.splitlines() if line.strip()]
    imports = [line for line in lines if line.startswith(("from ", "import "))]
    assert len(lines) - len(imports) <= 10


# tables and links


def test_the_table_of_settings_is_current() -> None:
    assert section(TEXT, "settings").strip() == settings.table(), (
        "run: python -m tests.readme.blocks"
    )


def test_each_alert_has_its_runbook() -> None:
    headings = set(re.findall(r"^#### (\w+)$", TEXT, re.MULTILINE))
    groups = yaml.safe_load((ROOT / "infra" / "alerts.yml").read_text())["groups"]
    assert {rule["alert"] for group in groups for rule in group["rules"]} == headings


def test_each_guarantee_names_tests_that_there_are() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 15
    assert named <= there


def test_each_link_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


def test_each_file_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:\./)?(?:infra|tests|actors|service)/[\w./-]+)`", TEXT)
    assert named
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_the_options_of_an_event_type_are_as_told() -> None:
    catalog = Catalog()
    catalog.event_type("x")(lambda payload, context: None)
    (declared,) = catalog
    assert f"`max_attempts` ({declared.max_attempts})" in TEXT
    assert f"`time_limit_ms` ({declared.time_limit_ms:,})" in TEXT
    assert f"`queue` (`{declared.queue}`)" in TEXT
