"""Measures PulseQueue on this machine, and peers beside it where asked for.

Each phase runs on fresh real servers, web and worker started by the Procfile's commands with the
settings of the environment. Rounds go through all phases, so that a noisy minute hits one value of
each; the table shows medians. Figures are of this machine: ratios of one run are what counts.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from infra.bench import machine, peers
from infra.bench.phases import PHASES, Phase
from infra.bench.processes import BenchError
from infra.bench.report import Results
from infra.bench.stack import Bench, Contestant, Stack, pulsequeue
from infra.servers import ServerError

_MINUTES, _MINUTES_A_PEER, _MINUTES_A_PLOT = 11.0, 6.0, 2.0
_QUICK_MINUTES = 2.5
_ROUNDS, _SECONDS, _GROWTH_JOBS = 3, 4, 1_000_000
_QUICK_GROWTH_JOBS = 20_000


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="infra/bench/run", description=__doc__)
    parser.add_argument(
        "--only", metavar="PHASE,...", help=f"only these phases: {', '.join(PHASES)}"
    )
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=_ROUNDS, help="values of each figure (3)"
    )
    parser.add_argument(
        "--seconds", metavar="N", type=int, default=_SECONDS, help="length of one measurement (4)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="nothing more is begun then (11, 6 more a peer)",
    )
    parser.add_argument("--quick", action="store_true", help="to see that it works: < 3 minutes")
    parser.add_argument(
        "--growth-jobs",
        metavar="N",
        type=int,
        help="finished jobs stored in the phase growth (1,000,000)",
    )
    parser.add_argument(
        "--peer", default="", metavar="NAME,...", help=f"beside us: {', '.join(peers.PEERS)}"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="JSON file for every value")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="folder for a PNG and an SVG")
    parser.add_argument("--list", action="store_true", help="say what the figures mean, and end")
    return _checked(parser, parser.parse_args())


def _checked(parser: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    for name in _names(args.only):
        if name not in PHASES:
            parser.error(f"--only: there is no phase {name!r}; there are {', '.join(PHASES)}")
    for name in _names(args.peer):
        if name not in peers.PEERS:
            parser.error(f"--peer: there is no {name!r}; there are {', '.join(peers.PEERS)}")
    if min(args.rounds, args.seconds, args.growth_jobs or 1) < 1:
        parser.error("--rounds, --seconds and --growth-jobs must be at least 1")
    if args.quick:
        args.rounds = args.seconds = 1
    return args


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


@dataclass(slots=True)
class Run:
    """All phases, so many rounds; what fails is told and the rest goes on."""

    args: argparse.Namespace
    contestants: list[Contestant]
    results: Results
    minutes: float
    began: float = field(default_factory=time.monotonic)
    took: dict[tuple[str, str], float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def phases(self) -> list[Phase]:
        wanted = _names(self.args.only) or [name for name in PHASES if name != "curve"]
        if self.args.plot and "curve" not in wanted:
            wanted.append("curve")
        return [phase for name, phase in PHASES.items() if name in wanted]

    def turns(self, number: int) -> list[tuple[Phase, Contestant]]:
        return [
            (phase, contestant)
            for phase in self.phases()
            if number <= phase.most_rounds
            for contestant in self.contestants
            if phase.for_peers or not contestant.is_peer
        ]

    def rounds(self) -> None:
        """No phase begins when the time is over, and no further round that would outlast it."""
        for number in range(1, self.args.rounds + 1):
            turns = self.turns(number)
            needed = sum(self.took.get((p.name, c.name), 0) for p, c in turns)
            if number > 1 and needed > self._left_seconds():
                self._skip(f"round {number}")
                break
            for phase, contestant in turns:
                if self._left_seconds() > 0:
                    self._measure(number, phase, contestant)
                else:
                    self._skip(f"{phase.name}, {contestant.name}")

    def _left_seconds(self) -> float:
        return self.began + self.minutes * 60 - time.monotonic()

    def _skip(self, what: str) -> None:
        self.skipped.append(what)
        say(f"skipped {what}: the {self.minutes:g} minutes are too few, see --minutes")

    def _measure(self, number: int, phase: Phase, contestant: Contestant) -> None:
        began = time.monotonic()
        bench = Bench(
            contestant,
            self.args.seconds,
            self.args.quick,
            self.args.growth_jobs or (_QUICK_GROWTH_JOBS if self.args.quick else _GROWTH_JOBS),
        )
        try:
            self.results.add(phase.name, contestant.name, phase.measure(bench))
        except (BenchError, OSError) as error:
            self.failures.append(f"{phase.name}, {contestant.name}: {error}")
            say(f"FAILED {self.failures[-1]}")
        seconds = self.took[phase.name, contestant.name] = time.monotonic() - began
        say(f"round {number}  {phase.name:<11} {contestant.name:<16} {seconds:5.1f} s")


def say(text: str) -> None:
    """How far it is; the table goes to stdout alone."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    args = parsed()
    if args.list:
        print("\n\n".join(f"{name}: {phase.meaning}" for name, phase in PHASES.items()))
        return 0
    signal.signal(signal.SIGTERM, _end)
    try:
        return measure(args)
    except (BenchError, ServerError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def measure(args: argparse.Namespace) -> int:
    contestants = [pulsequeue(), *(peers.contestant(name) for name in _names(args.peer))]
    with Stack(contestants[0]) as stack:
        about = machine.described(stack)
    about |= {"command": shlex.join(["./infra/bench/run", *sys.argv[1:]])}
    more = _MINUTES_A_PEER * (len(contestants) - 1) + (_MINUTES_A_PLOT if args.plot else 0)
    minutes = args.minutes or (_QUICK_MINUTES if args.quick else _MINUTES) + more
    run = Run(args, contestants, Results([c.name for c in contestants]), minutes)
    run.rounds()
    about |= {
        "took": f"{time.monotonic() - run.began:.0f} s",
        "skipped": "; ".join(run.skipped),
    }

    print("\n".join(f"{name}: {text}" for name, text in about.items() if text))
    print(f"\n{run.results.table()}")
    if args.out:
        whole = {"about": about, "figures": run.results.as_json(), "failures": run.failures}
        args.out.write_text(json.dumps(whole, indent=1) + "\n")
    if args.plot:
        from infra.bench.plot import draw

        print("\n" + "\n".join(str(file) for file in draw(run.results, args.plot)))
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
