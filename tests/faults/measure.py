"""Recovery times and endurance, in figures; `infra/bench/recovery` runs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from tests.faults import endurance, recovery


def main() -> None:
    """Prints a line a measurement."""
    parser = argparse.ArgumentParser(prog="infra/bench/recovery", description=__doc__)
    parser.add_argument("--repeat", type=int, default=30, help="repetitions of each recovery")
    names = [*recovery.MEASUREMENTS, *endurance.MEASUREMENTS]
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(names)}")
    options = parser.parse_args()
    measurements: dict[str, Callable[[], object]] = {
        **{n: partial(f, options.repeat) for n, f in recovery.MEASUREMENTS.items()},
        **endurance.MEASUREMENTS,
    }
    for unknown in set(options.names) - set(measurements):
        parser.error(f"unknown measurement: {unknown}")
    for name in options.names or measurements:
        print(measurements[name](), flush=True)


if __name__ == "__main__":
    main()
