"""Figures of several runs as one table, and as JSON."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from infra.bench.figures import Figure

_HIDDEN = {"curve"}  # for the plot


@dataclass(slots=True)
class Row:
    """One figure with its values, by contestant, a value a round."""

    phase: str
    figure: Figure
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def median(self, contestant: str) -> float | None:
        values = self.values.get(contestant)
        return statistics.median(values) if values else None

    def ratio(self, ours: str, peer: str) -> float | None:
        """Ours divided by the peer's: how many times as much."""
        mine, theirs = self.median(ours), self.median(peer)
        return None if mine is None or not theirs else mine / theirs


class Results:
    """All that was measured, in the order in which it came."""

    def __init__(self, contestants: list[str]) -> None:
        self.ours, *self.peers = contestants
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, phase: str, contestant: str, figures: list[Figure]) -> None:
        for figure in figures:
            row = self._rows.setdefault((phase, figure.name), Row(phase, figure))
            row.values[contestant].append(figure.value)

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def median(self, phase: str, name: str, contestant: str) -> float | None:
        row = self._rows.get((phase, name))
        return row.median(contestant) if row else None

    def errors(self) -> dict[str, float]:
        """By contestant, over all phases and rounds."""
        totals = dict.fromkeys((self.ours, *self.peers), 0.0)
        for row in self._rows.values():
            if row.figure.name == "errors":
                for contestant, values in row.values.items():
                    totals[contestant] += sum(values)
        return totals

    def table(self) -> str:
        """Medians as a Markdown table that is readable as it is; ratios are ours to the peer's."""
        head = ["", self.ours]
        for peer in self.peers:
            head += [peer, "ratio"]
        lines, phase = [head], ""
        for row in self.rows:
            if row.figure.detail or row.figure.name == "errors" or row.phase in _HIDDEN:
                continue
            title = row.phase if row.phase != phase else ""
            phase = row.phase
            label = row.figure.label.replace("  ", "- ", 1)
            lines.append([f"**{title}** {label}" if title else label, *self._cells(row)])
        bad = self.errors()
        last = ["**answers not 2xx, lost events**", _shown(bad[self.ours])]
        for peer in self.peers:
            last += [_shown(bad[peer]), ""]
        return _aligned([*lines, last])

    def _cells(self, row: Row) -> list[str]:
        cells = [_shown(row.median(self.ours))]
        for peer in self.peers:
            ratio = row.ratio(self.ours, peer)
            cells += [_shown(row.median(peer)), "" if ratio is None else f"{ratio:.2f} x"]
        return cells

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {
                "phase": row.phase,
                "name": row.figure.name,
                "label": row.figure.label.strip(),
                "better": row.figure.better,
                "median": {name: row.median(name) for name in row.values},
                "values": dict(row.values),
                "ratio": {p: r for p in self.peers if (r := row.ratio(self.ours, p)) is not None},
            }
            for row in self.rows
        ]


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    size = abs(value)
    digits = 0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = [
        f"| {line[0]:<{widths[0]}} | "
        + " | ".join(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        + " |"
        for line in lines
    ]
    rule = "| " + " | ".join(["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]) + " |"
    return "\n".join([texts[0], rule, *texts[1:]])
