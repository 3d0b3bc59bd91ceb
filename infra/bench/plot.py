"""Throughput and latency against connections, as PNG and SVG for the README.

No background and colours of middling lightness, so that it is readable on a light page and on a
dark one; in the SVG, text stays text.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from infra.bench.phases.curve import CONNECTIONS
from infra.bench.report import Results

NAME = "throughput-and-latency"
_INK, _GRID = "#757a81", "#757a8140"
_COLOURS = {"ingest": "#3b8eea", "pipeline": "#e07b39"}
_PEER_COLOURS = {"ingest": "#8a94c8", "pipeline": "#b39a7d"}
_TITLES = {
    ("ingest", "per_second"): "accepted/s, no worker",
    ("pipeline", "per_second"): "completed/s, both at once",
    ("ingest", "ms"): "POST to its answer",
    ("pipeline", "ms"): "created to completed",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pulsequeue",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Writes both files; where they are."""
    matplotlib: Any = import_module("matplotlib")  # the project's checks do without it
    matplotlib.use("Agg")
    plt: Any = import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(10, 6 if results.peers else 4.8), layout="constrained"
        )
        _throughput(left, results)
        _latency(right, results)
        files = [folder / f"{NAME}.svg", folder / f"{NAME}.png"]
        for file in files:
            metadata = {"Date": None} if file.suffix == ".svg" else None
            figure.savefig(file, transparent=True, dpi=160, metadata=metadata)
        plt.close(figure)
    return files


def _throughput(axes: Any, results: Results) -> None:
    for contestant in _shown(results):
        for kind in _COLOURS:
            points = _points(results, contestant, kind, "per_second")
            label = _label(results, contestant, _TITLES[kind, "per_second"])
            _line(axes, points, _colour(results, contestant, kind), label, marker="o")
    axes.set_title("Throughput, events a second")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _finish(axes)


def _latency(axes: Any, results: Results) -> None:
    for contestant in _shown(results):
        for kind in _COLOURS:
            colour = _colour(results, contestant, kind)
            for share, style in (("p50", "-"), ("p99", "--")):
                points = _points(results, contestant, kind, f"{share}_ms")
                label = _label(results, contestant, f"{_TITLES[kind, 'ms']}, {share}")
                _line(axes, points, colour, label, marker="o", linestyle=style)
    axes.set_title("Latency, ms")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    _finish(axes)


def _line(axes: Any, points: dict[int, float], colour: str, label: str, **style: Any) -> None:
    if points:
        axes.plot(
            list(points), list(points.values()), color=colour, label=label, markersize=4, **style
        )


def _finish(axes: Any) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(CONNECTIONS, [str(n) for n in CONNECTIONS])
    axes.minorticks_off()
    axes.set_xlabel("connections")
    axes.grid(visible=True)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.14))


def _points(results: Results, contestant: str, kind: str, name: str) -> dict[int, float]:
    found = {n: results.median("curve", f"{kind}.{n}.{name}", contestant) for n in CONNECTIONS}
    return {n: value for n, value in found.items() if value}


def _colour(results: Results, contestant: str, kind: str) -> str:
    return (_COLOURS if contestant == results.ours else _PEER_COLOURS)[kind]


def _label(results: Results, contestant: str, text: str) -> str:
    return text if not results.peers else f"{contestant}: {text}"


def _shown(results: Results) -> list[str]:
    """More than one peer would be a tangle."""
    return [results.ours, *results.peers[:1]]
