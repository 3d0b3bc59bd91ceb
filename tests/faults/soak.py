"""The long test: random load under random faults, then a verdict of one page. See `infra/soak`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from tests.faults.chaos import Chaos, schedules
from tests.faults.checker import KINDS, Needed, Report, check
from tests.faults.history import OK, UNKNOWN, History, Recorder
from tests.faults.load import Load, watch
from tests.faults.recording import Client
from tests.faults.stack import Stack
from tests.faults.waiting import eventually

_CLIENTS = 6
_DRAIN_SECONDS = 180.0


def main() -> int:
    """0 only where the verdict is green."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="pulsequeue-soak-"))
    print(f"seed {options.seed}; logs in {folder}", flush=True)
    recorder = Recorder()
    began = time.monotonic()
    with Stack(folder, webs=2, workers=3) as stack:
        errors = _run(stack, recorder, options)
        drained = _drain(stack)
        _collect(stack, recorder.history)
    needed = Needed(accepted=options.events, faults=options.kills, effects=options.events)
    report = check(recorder.history, needed)
    print(_page(options, recorder.history, report, time.monotonic() - began, drained))
    for error in errors:
        print(f"  a step of the schedule failed: {error}")
    if report.verdict != "green":
        recorder.history.save(folder / "history.json")
        print(f"\nthe history is in {folder / 'history.json'}\n{report}")
    return 0 if report.verdict == "green" else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="infra/soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--minutes", type=float, default=12.0, help="of load under faults")
    parser.add_argument("--kills", type=int, default=200, help="kill -9, spread over everything")
    parser.add_argument("--events", type=int, default=20_000, help="least number accepted")
    return parser.parse_args()


def _run(stack: Stack, recorder: Recorder, options: argparse.Namespace) -> list[str]:
    """Load and faults side by side, until the schedule is done and enough was accepted."""
    seconds = options.minutes * 60
    clients = [Client(stack.api_of(stack.webs[i % 2]), recorder) for i in range(_CLIENTS)]
    load = Load(clients, options.seed, rate=1.6 * options.events / seconds)
    plans = schedules(options.seed, seconds, options.kills)
    chaos = [
        Chaos(stack, recorder, steps, f"{options.seed}/{lane}") for lane, steps in enumerate(plans)
    ]
    watched: list[str] = []
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(clients[0], watched, done))
    for thread in (load, *chaos, watcher):
        thread.start()
    while any(lane.is_alive() for lane in chaos):
        watched.extend(list(recorder.history.accepted)[-5:])
        _say(recorder.history)
        time.sleep(10)
    _accept_the_rest(stack, recorder.history, options.events)
    load.stop()
    done.set()
    watcher.join(60)
    return [error for lane in chaos for error in lane.errors]


def _accept_the_rest(stack: Stack, history: History, events: int) -> None:
    """The faults are over; the load goes on until as much was accepted as was asked for."""
    stack.undo_faults()
    deadline = time.monotonic() + 300
    while len(history.accepted) < events and time.monotonic() < deadline:
        time.sleep(1)


def _say(history: History) -> None:
    kills = sum(fault.kind == "kill" for fault in history.faults)
    print(f"  {len(history.accepted)} accepted, {kills} killed", file=sys.stderr, flush=True)


def _drain(stack: Stack) -> float:
    """Heals everything and waits until nothing is open; the seconds it took."""
    began = time.monotonic()
    stack.undo_faults()
    stack.wait_ready(60)
    open_jobs = {"status": {"$in": ["pending", "processing"]}}
    try:
        eventually(
            lambda: stack.database["jobs"].count_documents(open_jobs) == 0,
            within=_DRAIN_SECONDS,
            every=0.5,
        )
    except AssertionError:
        print("  not everything came to an end", file=sys.stderr)
    return time.monotonic() - began


def _collect(stack: Stack, history: History) -> None:
    history.documents = list(stack.database["jobs"].find())
    history.effects = stack.journal.effects()
    history.counters = {d["_id"]: d for d in stack.database["counters"].find()}


def _page(
    options: argparse.Namespace, history: History, report: Report, seconds: float, drained: float
) -> str:
    kills = Counter(f.target for f in history.faults if f.kind == "kill")
    others = Counter(f"{f.kind} {f.target}" for f in history.faults if f.kind != "kill")
    posts = history.count("post")
    ends = Counter(d["status"] for d in history.documents)
    crashed = sum((d["error"] or {}).get("reason") == "crash" for d in history.documents)
    fenced = (history.counters or {}).get("_worker", {}).get("fenced", 0)
    lines = [
        "",
        f"verdict       {report.verdict.upper()}",
        f"seed          {options.seed}   ({options.minutes:g} minutes of faults)",
        f"time          {seconds:.0f} s, of which draining {drained:.0f} s",
        (
            f"accepted      {len(history.accepted)} events ({posts[OK]} posts ok, "
            f"{posts[UNKNOWN]} without a word, {posts['fail']} refused)"
        ),
        f"calls         {len(history.calls)}, GETs {sum(history.count('get').values())}",
        f"killed        {sum(kills.values())}: "
        + ", ".join(f"{name} {count}" for name, count in sorted(kills.items())),
        "other faults  " + ", ".join(f"{name} {count}" for name, count in sorted(others.items())),
        "ended         " + ", ".join(f"{name} {count}" for name, count in sorted(ends.items())),
        f"              {crashed} failed for crashes, {fenced:g} late outcomes were fenced off",
        (
            f"runs          {sum(e.what == 'start' for e in history.effects)} started, "
            f"{sum(e.what == 'end' for e in history.effects)} ended well"
        ),
        *[f"{kind:<14}{report.counts[kind]}" for kind in KINDS],
        *[f"invalid       {why}" for why in report.invalid],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
