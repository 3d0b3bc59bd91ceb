"""`python -m service.doctor`: compares MongoDB and Redis, and says where they disagree. Reads only.

Exit code 0: nothing is wrong (there may be notes and warnings); 1: something is, or a server could
not be asked; 2: a setting or an argument is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

import orjson

from service.clock import ServerClock
from service.doctor.checks import CHECKS
from service.doctor.examination import Finding, Level, Servers, examine
from service.errors import SettingError
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.settings import Settings
from service.store import Stores

PAUSE_SECONDS = 6.0
"""Longer than an idle worker takes to look at everything again."""
_MONGODB_TIMEOUT_MS = 60_000  # counting ten million documents takes longer than a job's update may


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m service.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument(
        "--pause-seconds",
        type=float,
        default=PAUSE_SECONDS,
        help="between a look that found something and the look that confirms it (%(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_env()
    except SettingError as error:
        print(f"setting {error}", file=sys.stderr)
        return 2
    findings = diagnose(settings, options.pause_seconds)
    print(as_json(findings) if options.json else as_text(findings))
    return 0 if is_well(findings) else 1


def diagnose(settings: Settings, pause_seconds: float = PAUSE_SECONDS) -> list[Finding]:
    """The findings on the servers that the settings name; takes as long as the slowest answers."""
    broker = PulseBroker(redis_client.connect(settings))
    stores = Stores.connect(replace(settings, mongodb_timeout_ms=_MONGODB_TIMEOUT_MS))
    try:
        return examine(CHECKS, Servers(stores, broker, ServerClock()), pause_seconds)
    finally:
        stores.close()
        broker.close()


def is_well(findings: Sequence[Finding]) -> bool:
    return all(finding.level is not Level.PROBLEM for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """A line a check, with examples below what was found."""
    lines = [line for finding in findings for line in _lines(finding)]
    verdict = "Nothing is wrong." if is_well(findings) else "Something is wrong: see the problems."
    return "\n".join([*lines, "", verdict])


def _lines(finding: Finding) -> list[str]:
    line = f"{finding.level:<8} {finding.check}"
    if finding.level is Level.OK:
        return [line]
    count = f"{finding.count}: " if finding.count else ""
    more = finding.count - len(finding.examples)
    examples = [*finding.examples, *([f"and {more} more"] if more else [])]
    return [f"{line}: {count}{finding.meaning}", *(f"{'':9}- {text}" for text in examples)]


def as_json(findings: Sequence[Finding]) -> str:
    """`{"well": true, "findings": [{"check", "level", "meaning", "count", "examples"}]}`"""
    found = [asdict(finding) for finding in findings]
    return orjson.dumps({"well": is_well(findings), "findings": found}).decode()
