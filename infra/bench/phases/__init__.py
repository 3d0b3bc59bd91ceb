"""The phases; each module says what its figures mean, and `measure` measures them once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from infra.bench.figures import Figure
from infra.bench.phases import (
    batch,
    curve,
    drain,
    growth,
    idle,
    ingest,
    latency,
    makespan,
    pipeline,
    shapes,
    starvation,
)
from infra.bench.stack import Bench


@dataclass(frozen=True, slots=True)
class Phase:
    """`most_rounds`: more rounds of the whole benchmark don't repeat it."""

    module: ModuleType
    most_rounds: int = 99
    for_peers: bool = False

    @property
    def name(self) -> str:
        return self.module.__name__.rpartition(".")[2]

    @property
    def meaning(self) -> str:
        return inspect.cleandoc(self.module.__doc__ or "")

    @property
    def measure(self) -> Callable[[Bench], list[Figure]]:
        measure: Callable[[Bench], list[Figure]] = self.module.measure
        return measure


PHASES = {
    phase.name: phase
    for phase in (
        Phase(ingest, for_peers=True),
        Phase(drain, for_peers=True),
        Phase(pipeline, for_peers=True),
        Phase(latency, for_peers=True),
        Phase(batch),
        Phase(growth, most_rounds=1),
        Phase(idle, most_rounds=1),
        Phase(shapes, most_rounds=1, for_peers=True),
        Phase(makespan, most_rounds=1),
        Phase(starvation, most_rounds=1),
        Phase(curve, most_rounds=1, for_peers=True),
    )
}
"""`curve` is for the plot, and measured only where one is wanted."""
