"""Each block of the README and of docs/ does what it says, or says where it is run, or why not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.stack import QUICK, Stack
from tests.readme.answers import in_order, unlike
from tests.readme.blocks import LANGUAGES, PAGES, README, ROOT, Block, all_blocks, blocks, comments
from tests.readme.walk import PROGRAMS, WALKED, Walk

BLOCKS = all_blocks()
TAKEN = [block for block in BLOCKS if block.what in WALKED]
NOT_RUN = [block for block in BLOCKS if block.what == "not run"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("readme"), env=QUICK) as stack:
        yield stack


@pytest.fixture(scope="module")
def walks(stack: Stack) -> dict[Path, Walk]:
    """One for each page: what a page shows begins with itself."""
    env = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "REDIS_URL": stack.redis.url,
        "MONGODB_URI": stack.mongo.url,
    }
    url = f"http://localhost:{stack.webs[0].env['PORT']}"
    return {page: Walk(url, env, ROOT) for page in PAGES}


@pytest.mark.e2e
@pytest.mark.parametrize("block", TAKEN, ids=lambda b: f"{b.place}-{b.what}-{b.language}")
def test_a_block_does_what_it_says(walks: dict[Path, Walk], block: Block) -> None:
    program = PROGRAMS[block.language][0] if block.what == "run" else "bash"
    needed = "curl" if "curl " in block.text and block.language == "sh" else program
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not on PATH")
    walks[block.page].take(block)


def test_every_block_is_run_or_says_why_not() -> None:
    silent = [b.place for b in BLOCKS if b.language in LANGUAGES and not b.what]
    assert silent == []
    reasons = [block.note for block in BLOCKS if block.what in {"not run", "file"}]
    assert all(reasons)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_comment_has_its_block_and_every_fence_its_language(page: Path) -> None:
    found = blocks(page)
    assert comments(page) == sum(bool(block.what) for block in found)
    assert len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) == 2 * len(found)


def test_what_is_shown_follows_what_prints_it() -> None:
    for before, block in pairwise(BLOCKS):
        if block.what in {"shows", "like"}:
            assert (before.page, before.what) == (block.page, "run"), block.place


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.place)
def test_a_block_that_is_not_run_is_a_program_at_least(block: Block) -> None:
    assert block.language == "sh"
    done = subprocess.run(["bash", "-n"], input=block.text, text=True, timeout=10, check=False)
    assert done.returncode == 0
    named = re.findall(r"(?:\./)?\binfra/[\w.*/@-]+", block.text)
    assert [name for name in named if not list(ROOT.glob(name.removeprefix("./")))] == []


def test_the_two_commands_are_in_the_readme() -> None:
    first = next(block for block in blocks(README) if block.language == "sh")
    assert first.text.endswith("\n./infra/up\n")
    assert "`./infra/test`" in README.read_text()


def test_the_five_calls_are_there_in_three_languages() -> None:
    for language, comment in (("sh", "#"), ("python", "#"), ("javascript", "//")):
        numbered = [
            re.findall(rf"^ *{comment} (\d)\. ", block.text, re.MULTILINE)
            for block in TAKEN
            if block.language == language
        ]
        assert ["1", "2", "3", "4", "5"] in numbered


# how answers are compared


@pytest.mark.parametrize(
    ("printed", "faults"),
    [
        ({"n": 7, "on": True, "list": [{"a": 1}, {"a": 2}], "any": "x", "free": {"b": 1}}, 0),
        ({"n": "7", "on": True, "list": [{"a": 1}], "any": 1, "free": {}}, 1),
        ({"n": 7, "on": False, "list": [{"a": 1}], "any": 1, "free": {}}, 1),
        ({"n": 7, "on": True, "list": [], "any": 1, "free": {}}, 1),
        ({"n": 7, "on": True, "list": [{"a": 1}, {"b": 1}], "any": 1, "free": {}}, 1),
        ({"n": 7, "on": True, "list": [{"a": 1}], "any": 1}, 1),
        ({"n": 7, "on": True, "list": [{"a": 1}], "any": 1, "free": {}, "more": 1}, 1),
        ([], 1),
    ],
)
def test_json_of_another_form_is_found(printed: object, faults: int) -> None:
    shown = {"n": 0, "on": True, "list": [{"a": 1}], "any": None, "free": {}}
    assert len(unlike(printed, shown)) == faults


def test_of_an_answers_headers_those_that_are_shown_are_compared() -> None:
    printed = 'HTTP/1.1 202 Accepted\r\nServer: x\r\nRetry-After: 1\r\n\r\n{"a":1}'
    same, told = in_order(printed, 'HTTP/1.1 202 OK\nretry-after: 1\n\n{"a": 1}\n', "http")
    assert same == told
    for shown in (
        'HTTP/1.1 200 OK\nretry-after: 1\n\n{"a": 1}',
        'HTTP/1.1 202 OK\nretry-after: 2\n\n{"a": 1}',
        'HTTP/1.1 202 OK\netag: 2\n\n{"a": 1}',
        'HTTP/1.1 202 OK\nretry-after: 1\n\n{"a": 2}',
        "HTTP/1.1 202 OK\nretry-after: 1\n",
    ):
        same, told = in_order(printed, shown, "http")
        assert same != told
