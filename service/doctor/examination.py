"""Carries out checks: each looks twice, so that only what stays counts.

A system at work is always a little out of step, and its sweep mends that within seconds. So what a
first look finds is looked for again after a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import redis

from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.queue.broker import PulseBroker
from service.store import Stores

Found = Mapping[str, str]
"""What a look found: a key that stays the same while the fault lasts, and a text to show."""


@dataclass(frozen=True, slots=True)
class Servers:
    """What is looked at; the first check reads `clock`."""

    stores: Stores
    broker: PulseBroker
    clock: ServerClock


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Harmless, and mends itself."""
    WARNING = "warning"
    """Nothing is wrong now; something will be, one day."""
    PROBLEM = "problem"
    """Should have been mended by now, or can't be looked at."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look for; `meaning` says what it is if there is any."""

    name: str
    look: Callable[[Servers], Found]
    meaning: str
    level: Level = Level.PROBLEM
    needs: tuple[str, ...] = ()
    """Names of checks without whose success this one would only wait for a server."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a check; `examples` are the first of `count`."""

    check: str
    level: Level
    meaning: str = ""
    count: int = 0
    examples: tuple[str, ...] = ()


def examine(
    checks: Sequence[Check], servers: Servers, pause_seconds: float, *, most_examples: int = 5
) -> list[Finding]:
    """Looks once, and again after the pause for what was found; a finding a check, in order."""
    looked: dict[str, Found | str] = {}
    for check in checks:
        missing = [name for name in check.needs if isinstance(looked.get(name), str)]
        looked[check.name] = (
            f"can't be looked for: see {missing[0]!r}" if missing else _looked(check, servers)
        )
    if any(found and not isinstance(found, str) for found in looked.values()):
        time.sleep(pause_seconds)
    return [
        _finding(check, _still(looked[check.name], check, servers), most_examples)
        for check in checks
    ]


def _looked(check: Check, servers: Servers) -> Found | str:
    """What was found, or why it couldn't be looked for."""
    try:
        return check.look(servers)
    except (StoreUnavailable, redis.RedisError) as error:
        return f"can't be looked for: {str(error).partition(' (configured')[0]}"


def _still(found: Found | str, check: Check, servers: Servers) -> Found | str:
    if not found or isinstance(found, str):
        return found
    again = _looked(check, servers)
    if isinstance(again, str):
        return again
    return {key: text for key, text in again.items() if key in found}


def _finding(check: Check, found: Found | str, most: int) -> Finding:
    if isinstance(found, str):
        return Finding(check.name, Level.PROBLEM, found)
    if not found:
        return Finding(check.name, Level.OK)
    examples = tuple(list(found.values())[:most])
    return Finding(check.name, check.level, check.meaning, len(found), examples)
