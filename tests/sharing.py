"""How a run with several processes (`pytest -n 2`) shares the tests out.

The tests of a file run in one process, in their order: they share what it has started, and some go
on where the last one ended. tests/faults is one share as a whole: it has one running system, and
mostly waits, while the other process has most of what computes.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_WHOLE = "tests/faults/"
_LONGEST_FIRST = (
    *("tests/faults/", "tests/e2e/", "tests/api/test_outages.py", "tests/api/test_openapi.py"),
    *("tests/contract/test_store_model.py", "tests/unit/test_time_limits.py"),
    *("tests/api/", "tests/contract/", "tests/operations/", "tests/readme/", "tests/"),
)
"""Folders and files; a test belongs to the first that it lies in."""


class Shares(LoadScopeScheduling):
    """Each process gets the next share when it is nearly through with its last one."""

    def _split_scope(self, nodeid: str) -> str:
        """The name of the share that the test belongs to."""
        return _WHOLE if nodeid.startswith(_WHOLE) else nodeid.partition("::")[0]


def scheduler(config: pytest.Config, log: Any) -> Shares:
    config.option.loadscopereorder = False  # else those with the most tests would come first
    return Shares(config, log)


def longest_first(items: list[pytest.Item]) -> None:
    """So that in the end no process has a long share to itself. A file stays together."""
    items.sort(key=lambda item: _rank(item.nodeid))


def sendable(report: Any) -> Any:
    """The report with lone surrogates escaped: tests that log hostile text have them in what was
    captured, and a string goes from process to process as UTF-8."""
    match report:
        case str():
            return report.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: sendable(value) for key, value in report.items()}
        case list():
            return [sendable(value) for value in report]
        case tuple():
            return tuple(sendable(value) for value in report)
    return report


def _rank(nodeid: str) -> int:
    return next(n for n, place in enumerate(_LONGEST_FIRST) if nodeid.startswith(place))
