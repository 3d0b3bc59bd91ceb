"""Links and names of the README and docs/ lead somewhere; and the README stays short."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from service.settings import Settings
from tests.readme.blocks import OPERATING, PAGES, README, ROOT, section

DESIGN = ROOT / "docs" / "design.md"
MOST_LINES = 250
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
OF_OTHERS = {
    *("MONGO_URL", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS"),  # Railway's
    "GUNICORN_CMD_ARGS",
    "TRANSITIONS",  # of service.job
    *re.findall(r"\$\{(\w+)", (ROOT / "Procfile").read_text()),
    *re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()),
}
"""Names in capitals that are no settings."""
on_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    """The page without its blocks."""
    return FENCED.sub("", page.read_text())


def anchor(heading: str) -> str:
    """Of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


def links(page: Path) -> list[str]:
    """Of its links and pictures those that stay in the repository."""
    return [to for to in re.findall(r"\]\(([^)]+)\)", prose(page)) if "://" not in to]


def test_the_readme_is_for_the_first_hour() -> None:
    assert len(README.read_text().splitlines()) <= MOST_LINES


@on_each_page
def test_each_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, to = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), link
        assert not to or to in anchors(there), link


@on_each_page
def test_no_heading_comes_twice(page: Path) -> None:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    assert len(headings) == len(set(headings))


def test_the_readme_leads_to_every_page() -> None:
    assert {f"docs/{page.name}" for page in PAGES if page != README} <= set(links(README))


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_a_page_begins_with_its_contents(page: Path) -> None:
    head, _, _ = page.read_text().partition("\n## ")
    sections = re.findall(r"^## (.+)$", prose(page), re.MULTILINE)
    told = set(re.findall(r"\]\(#([^)]+)\)", head))
    assert [name for name in sections if anchor(name) not in told] == []


def test_each_file_that_is_named_is_there() -> None:
    named = [(page.name, name) for page in PAGES for name in files(page)]
    assert len(named) > 50
    assert [(page, name) for page, name in named if not (ROOT / name).exists()] == []


def files(page: Path) -> list[str]:
    """What the page names of the repository's files."""
    inside = re.findall(r"`((?:\./)?(?:infra|tests|actors|service|docs)/[^` ]*)`", page.read_text())
    outside = r"`(\w[\w-]*\.(?:yml|yaml|toml|md|txt)|Procfile|Dockerfile)`"
    return [*inside, *re.findall(outside, prose(page))]


@on_each_page
def test_each_module_that_is_run_is_there(page: Path) -> None:
    for module in set(re.findall(r"python -m ([\w.]+)", page.read_text())) - {"venv"}:
        assert importlib.util.find_spec(module), module


@on_each_page
def test_each_setting_that_is_named_is_there(page: Path) -> None:
    settings = {field.name.upper() for field in fields(Settings)}
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", prose(page)))
    assert named <= settings | OF_OTHERS


def test_each_alert_has_its_runbook() -> None:
    headings = set(re.findall(r"^### (PulseQueue\w+)$", OPERATING.read_text(), re.MULTILINE))
    groups = yaml.safe_load((ROOT / "infra" / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["alert"] for rule in rules} == headings
    for rule in rules:
        path, _, to = rule["annotations"]["runbook_url"].partition("#")
        assert to in anchors(ROOT / path)


def test_the_files_that_point_at_pages_point_at_pages_that_there_are() -> None:
    for unit in (ROOT / "infra" / "systemd").glob("*.service"):
        (named,) = re.findall(
            r"^Documentation=file:///opt/pulsequeue/(.+)$", unit.read_text(), re.M
        )
        assert ROOT / named in PAGES


def pictured(tree: str) -> Iterator[Path]:
    """What the picture of the tree names. A line: files, or a folder that what is indented below
    lies in; then, two blanks further, what they are for."""
    above = [(-1, ROOT)]
    for line in filter(str.strip, tree.splitlines()):
        indent = len(line) - len(line.lstrip())
        while above[-1][0] >= indent:
            above.pop()
        paths = [above[-1][1] / name for name in re.split(r" {2,}", line.strip())[0].split()]
        above.append((indent, paths[0]))
        yield from paths


def test_the_picture_of_the_tree_shows_what_is_there_and_every_folder() -> None:
    (tree,) = re.findall(r"^```text\n(.*?)^```$", section(DESIGN, "code"), re.MULTILINE | re.DOTALL)
    shown = set(pictured(tree))
    assert [path for path in shown if not path.exists()] == []
    for top in ("service", "actors", "tests"):
        folders = {f for f in (ROOT / top).iterdir() if f.is_dir() and f.name != "__pycache__"}
        assert folders <= shown
