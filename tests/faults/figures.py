"""Quantiles and tables, for what measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values doesn't exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[int(rank) - 1]


@dataclass(frozen=True, slots=True)
class Timed:
    """Repetitions of one measurement, in seconds, and the most that its 99th percentile may be."""

    what: str
    seconds: list[float]
    target: float

    def __str__(self) -> str:
        p50, p99 = quantile(self.seconds, 0.5), quantile(self.seconds, 0.99)
        verdict = "ok" if p99 <= self.target else "TOO SLOW"
        return (
            f"{self.what:<58} n={len(self.seconds):<3} p50 {p50:6.2f} s  p99 {p99:6.2f} s  "
            f"max {max(self.seconds):6.2f} s  (target {self.target:g} s) {verdict}"
        )
