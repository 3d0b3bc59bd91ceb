"""Labels: short texts that say whom or what an event belongs to, in one table.

A label is optional. The documents of events that have it hold it under its name; those that have
none don't, and cost its index nothing. Clients see it in every event (null where there is none) and
filter by it. A line in `LABELS` is all that the store, the API and `/openapi.json` need to know it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Label:
    """`pattern`: what it may be, for Python and JSON Schema alike."""

    name: str
    pattern: str
    rule: str
    """The pattern in words."""
    description: str
    posted: bool = False
    """Whether clients give it with their events; otherwise it is ours to set."""
    of_type: bool = False
    """Whether it says something only together with the event's type, and is asked for with it."""

    def fits(self, text: str) -> bool:
        return re.fullmatch(self.pattern, text) is not None


SCHEDULE = Label(
    "schedule",
    r"^[a-z0-9][a-z0-9_.-]{0,99}$",
    "the name of a schedule: 1 to 100 of a to z, 0 to 9, _, . and -",
    "the schedule that made it",
)
LABELS = (
    Label(
        "group",
        r"^[!-~]{1,128}$",
        "1 to 128 visible ASCII characters",
        "whom or what it is about, within its type",
        posted=True,
        of_type=True,
    ),
    SCHEDULE,
)
NAMES = tuple(label.name for label in LABELS)
POSTED = tuple(label.name for label in LABELS if label.posted)


def labels_of(given: Mapping[str, Any], names: tuple[str, ...] = NAMES) -> Mapping[str, str]:
    """Those of the labels that are there."""
    return {name: given[name] for name in names if given.get(name) is not None}


def without_type(labels: Mapping[str, str]) -> str | None:
    """The name of one that must not be asked for without a type."""
    return next((label.name for label in LABELS if label.of_type and label.name in labels), None)
