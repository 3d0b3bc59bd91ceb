"""A measured value, and how values become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of one run; `name` is the same in every run and for every contestant."""

    name: str
    label: str
    value: float
    better: Better = "higher"
    detail: bool = False
    """Only for the JSON, not for the table."""


def lower(name: str, label: str, value: float, *, detail: bool = False) -> Figure:
    """A figure of which less is better."""
    return Figure(name, label, value, "lower", detail)


def errors(count: float) -> Figure:
    """Answers that were not 2xx, and events that never ended: anything but 0 is a defect."""
    return lower("errors", "answers not 2xx, lost events", count)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share (0 to 1) of the ordered ones does not exceed; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def percentile_of_counts(counts: Mapping[int, int], share: float) -> float:
    """The same of a histogram: how often each value came."""
    left = int(sum(counts.values()) * share)
    for value in sorted(counts):
        left -= counts[value]
        if left < 0:
            return float(value)
    return float(max(counts, default=0))
