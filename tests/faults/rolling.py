"""A rolling deploy: a former version is replaced by this one while events come in and run.

python -m tests.faults.rolling --former PATH: a checkout of that version, with its own `.venv`.

Both run side by side on the same servers, then the former one is stopped. Nothing may be lost or
done twice, and in the end everything goes the way of this version.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from tests.faults.checker import KINDS, Needed, check
from tests.faults.history import Document, Recorder
from tests.faults.load import Load, an_event, watch
from tests.faults.processes import Process
from tests.faults.recording import Client
from tests.faults.stack import EVENT_TYPES, Stack

_TYPES = ("journal.sync", "journal.async", "journal.mail", "journal.slow_retry")
_MORE_TYPES = """
from service.backoff import Backoff
from service.catalog import event_type
from tests.faults.journal_types import journal_async, journal_sync

event_type("journal.mail", queue="mail", backoff=Backoff(first_ms=50, cap_ms=400))(journal_sync)
event_type("journal.slow_retry", queue="mail", backoff=Backoff(first_ms=10_000, cap_ms=20_000))(
    journal_async
)
"""
_FORMER_KEYS = ("dramatiq:default.msgs", "dramatiq:mail.msgs")
_SEED = 14
_BATCH = 40
_KEYS = 100
_LAST_SECONDS = 120.0
"""The janitor comes by every 30 s; events are delayed by up to 60."""


class Deploy:
    """One deploy on a stack that has no processes yet."""

    def __init__(self, stack: Stack, former: Path) -> None:
        self.stack, self.former = stack, former
        self.recorder = Recorder()
        self._rng = random.Random(_SEED)
        self._keyed: list[tuple[int, str, Document, str]] = []
        (stack.folder / "more_types.py").write_text(_MORE_TYPES)
        self._env = {
            "PYTHONPATH": str(stack.folder),
            "EVENT_TYPE_MODULES": f"{EVENT_TYPES},more_types",
        }

    def start_former(self) -> list[Process]:
        return self._start(root=self.former)

    def start_new(self) -> list[Process]:
        return self._start()

    def _start(self, **of: Path) -> list[Process]:
        add = (self.stack.add_web, self.stack.add_worker, self.stack.add_worker)
        processes = [one(**of, **self._env) for one in add]  # type: ignore[arg-type]
        self.stack.wait_ready(60)
        return processes

    def client(self, web: Process) -> Client:
        return Client(self.stack.api_of(web), self.recorder)

    def fill(self, client: Client, events: int) -> None:
        """A backlog in every state: due, delayed, failing, rejected, with keys."""
        for key in range(_KEYS):
            kind, payload, _ = an_event(self._rng, _TYPES)
            mark = self.recorder.plan(payload)
            client.post_again(mark, kind, payload, key=f"key-{key}")
            self._keyed.append((mark, kind, payload, f"key-{key}"))
        for _ in range(events // _BATCH):
            client.post_batch([self._event() for _ in range(_BATCH)])

    def _event(self) -> Document:
        kind, payload, fields = an_event(self._rng, _TYPES)
        if self._rng.random() < 0.1:
            fields["delay_ms"] = self._rng.randint(3_000, 60_000)
        return {"type": kind, "payload": payload, **fields}

    def repeat_keys(self, client: Client) -> None:
        """The same wishes once more, through another web."""
        for mark, kind, payload, key in self._keyed:
            client.post_again(mark, kind, payload, key=key)

    def stop(self, processes: list[Process]) -> None:
        """One after the other, as a platform does."""
        for process in processes:
            with self.recorder.fault("term", process.kind, *process.family()):
                code = self.stack.remove(process, 30)
            print(f"  the former {process.kind} ended with {code}", flush=True)

    def wait_for_the_index(self, began: float) -> dict[str, float | None]:
        """How many seconds after `began` the former version's index was gone."""
        while self._has_former_index() and time.monotonic() - began < _LAST_SECONDS:
            time.sleep(0.2)
        gone = not self._has_former_index()
        return {"index dropped": round(time.monotonic() - began, 1) if gone else None}

    def wait_for_the_new_way(self, began: float) -> dict[str, float | None]:
        """How many seconds after `began` nothing was left of the former version's; None: not in
        time."""
        redis = self.stack.redis_client
        looks = {
            "hints adopted": lambda: (
                not redis.exists("dramatiq:default.msgs", "dramatiq:mail.msgs")
            ),
            "no job is open": lambda: not self._open_jobs(),
            "dead letters taken": lambda: not self._undelivered(),
        }
        done: dict[str, float | None] = dict.fromkeys(looks)
        while None in done.values() and time.monotonic() - began < _LAST_SECONDS:
            for name, look in looks.items():
                if done[name] is None and look():
                    done[name] = round(time.monotonic() - began, 1)
            time.sleep(0.2)
        return done

    def _has_former_index(self) -> bool:
        return "waiting" in self.stack.database["jobs"].index_information()

    def _open_jobs(self) -> int:
        return self.stack.database["jobs"].count_documents(
            {"status": {"$in": ["pending", "processing"]}}
        )

    def _undelivered(self) -> int:
        return self.stack.database["jobs"].count_documents(
            {"status": "failed", "dead_lettered_at": {"$exists": False}}
        )

    def collect(self) -> None:
        history = self.recorder.history
        history.documents = list(self.stack.database["jobs"].find())
        history.effects = self.stack.journal.effects()
        history.counters = {d["_id"]: d for d in self.stack.database["counters"].find()}

    def dead_letters(self) -> Counter[int]:
        """How many failed events were told of so many times."""
        logs = [log.read_text() for log in self.stack.folder.glob("worker-*.log")]
        lines = [line for log in logs for line in log.splitlines() if "failed for good" in line]
        failed = [d["_id"] for d in self.recorder.history.documents if d["status"] == "failed"]
        return Counter(sum(event in line for line in lines) for event in failed)


def old_metrics(deploy: Deploy, web: Process) -> str:
    """What it answers to who asks for its metrics: status and size."""
    answer = deploy.stack.api_of(web).http.get("/metrics")
    return f"{answer.status_code}, {len(answer.content)} bytes"


def main() -> int:
    """0 only where the verdict is green and nothing of the former version is left."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="pulsequeue-rolling-"))
    print(f"logs in {folder}", flush=True)
    with Stack(folder, webs=0, workers=0) as stack:
        deploy = Deploy(stack, options.former.resolve())
        done = _roll(deploy, options)
        deploy.collect()
    report = check(deploy.recorder.history, Needed(options.events, 0, options.events // 2))
    ends = Counter(d["status"] for d in deploy.recorder.history.documents)
    print(f"verdict       {report.verdict.upper()}")
    print(f"accepted      {len(deploy.recorder.history.accepted)}; ended {dict(ends)}")
    print(f"dead letters  {dict(deploy.dead_letters())} (times told: events)")
    print(*[f"{kind:<14}{report.counts[kind]}" for kind in KINDS], sep="\n")
    for name, seconds in done.items():
        print(f"{name:<19}{seconds} s after the former workers stopped")
    if report.verdict != "green":
        print(report)
    return 0 if report.verdict == "green" and None not in done.values() else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.rolling", description=__doc__)
    parser.add_argument("--former", type=Path, required=True, help="a checkout with its .venv")
    parser.add_argument("--events", type=int, default=2_000, help="how many wait at the start")
    parser.add_argument("--seconds", type=float, default=60.0, help="side by side")
    return parser.parse_args()


def _roll(deploy: Deploy, options: argparse.Namespace) -> dict[str, float | None]:
    former = deploy.start_former()
    old = deploy.client(former[0])
    deploy.fill(old, options.events)
    print("  the backlog is there; the new version starts", flush=True)
    new = deploy.client(deploy.start_new()[0])
    deploy.repeat_keys(new)
    seen, over = list(deploy.recorder.history.accepted)[::20], threading.Event()
    watchers = [threading.Thread(target=watch, args=(c, seen, over)) for c in (old, new)]
    load = Load([old, new, new], _SEED, rate=20, types=_TYPES)
    for thread in (load, *watchers):
        thread.start()
    time.sleep(options.seconds)
    print("  the former version stops", flush=True)
    deploy.stop(former[1:])  # the workers first: its web goes on without them for a while
    began = time.monotonic()
    done = deploy.wait_for_the_index(began)
    deploy.repeat_keys(old)
    print(f"  the former web without its index: {old_metrics(deploy, former[0])}", flush=True)
    time.sleep(5)
    deploy.stop(former[:1])
    load.stop()
    over.set()
    return done | deploy.wait_for_the_new_way(began)


if __name__ == "__main__":
    sys.exit(main())
