"""What a process says of itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from service.runtime.identity import VERSION

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_the_version_is_written_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert "version" not in PROJECT
    assert "version" in PROJECT["dynamic"]
