"""What a run with several processes needs; see tests/sharing.py."""

from __future__ import annotations

import json

from tests.faults.processes import ROOT
from tests.sharing import _LONGEST_FIRST, sendable


def test_a_report_of_hostile_output_can_be_sent() -> None:
    report = {"sections": [("Captured log", "a\ud800b")], "duration": 0.1, "longrepr": None}
    sent = sendable(report)
    assert sent == report | {"sections": [("Captured log", "a\\ud800b")]}
    json.dumps(sent, ensure_ascii=False).encode()


def test_what_begins_early_is_there() -> None:
    assert [place for place in _LONGEST_FIRST if not (ROOT / place).exists()] == []
