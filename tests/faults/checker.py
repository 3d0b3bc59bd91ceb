"""The history checker: what a run broke of what was promised.

A run that is too small to mean anything is `invalid`, which is never green.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.facts import Facts, Violation
from tests.faults.history import History
from tests.faults.rules import RULES

KINDS = tuple(rule.__name__.replace("_", " ") for rule in RULES)


@dataclass(frozen=True, slots=True)
class Needed:
    """How much a run must have had to mean anything."""

    accepted: int = 1
    faults: int = 0
    effects: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    violations: list[Violation]
    invalid: list[str]
    """Why the run proves nothing; empty where it does."""

    @property
    def counts(self) -> dict[str, int]:
        """Violated events by kind."""
        events = {(v.kind, v.event) for v in self.violations}
        found = Counter(kind for kind, _ in events)
        return {kind: found[kind] for kind in KINDS}

    @property
    def kinds(self) -> set[str]:
        return {v.kind for v in self.violations}

    @property
    def verdict(self) -> str:
        """`green`, `red` or `invalid`."""
        if self.violations:
            return "red"
        return "invalid" if self.invalid else "green"

    def __str__(self) -> str:
        lines = [self.verdict, *self.invalid]
        lines += [f"{v.kind}: {v.event}: {v.detail}" for v in self.violations[:20]]
        return "\n".join(lines)


def check(history: History, needed: Needed | None = None) -> Report:
    """Applies every rule."""
    return Report(
        [violation for rule in RULES for violation in rule(Facts(history))],
        list(_missing(history, needed or Needed())),
    )


def _missing(history: History, needed: Needed) -> Iterator[str]:
    found = {
        "accepted events": (len(history.accepted), needed.accepted),
        "faults": (len(history.faults), needed.faults),
        "effects": (len(history.effects), needed.effects),
    }
    for what, (count, least) in found.items():
        if count < least:
            yield f"only {count} {what} where {least} are needed"
