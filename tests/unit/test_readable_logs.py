"""What `infra/up` shows of its processes' logs on the terminal."""

from __future__ import annotations

import json

import pytest

from infra.logs import readable

HOSTILE = "a\x1b[31m\r\nb\x9b2J"


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"event": HOSTILE, "level": "error"}),
        json.dumps({"event": "failed", "level": HOSTILE, "timestamp": HOSTILE}),
        json.dumps({"event": "failed", "error": HOSTILE, HOSTILE: 1}),
        json.dumps({"event": "failed", "exception": f"Traceback:\n  {HOSTILE}"}),
        json.dumps([HOSTILE]).replace("\\u001b", "\x1b"),
        "printed by a handler \x1b[31m",
    ],
)
def test_no_line_reaches_the_terminal_with_what_it_obeys(line: str) -> None:
    shown = readable(line)
    assert all(part.isprintable() for part in shown.split("\n")), shown


def test_an_entry_is_one_line_and_a_traceback_follows_by_lines() -> None:
    entry = {"timestamp": "2026-01-02T03:04:05.678Z", "level": "error", "event": "failed"}
    more = {"attempt": 2, "exception": "Traceback:\n  File x\nValueError: no"}
    assert readable(json.dumps(entry | more)) == (
        "03:04:05.678 ERROR   failed  attempt=2  exception=Traceback:\n"
        "      File x\n"
        "    ValueError: no"
    )
