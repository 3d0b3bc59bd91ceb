"""What is done to a system in a soak: schedules that a seed decides.

Kills and all other faults have a schedule each and run side by side, so that servers die that are
frozen already, and processes while the network is cut.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.job import Hint
from tests.factories import put_hints
from tests.faults.history import Recorder
from tests.faults.processes import Process, send
from tests.faults.proxy import Proxy
from tests.faults.recording import Client
from tests.faults.stack import Stack

KILLS = {"worker": 9, "web": 5, "redis": 4, "mongod": 2}
"""How kills are spread, in parts."""
OTHERS = {
    "freeze worker": 6,
    "freeze web": 2,
    "freeze redis": 3,
    "freeze mongod": 2,
    "stop worker": 3,
    "stop web": 2,
    "network to redis": 5,
    "network to mongod": 5,
    "flush redis": 2,
    "duplicate messages": 2,
    "post a killer": 2,
}
"""All other faults, in parts; a quarter as many as kills."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault, so many seconds after the start."""

    at: float
    action: str


def schedules(seed: int, seconds: float, kills: int) -> tuple[list[Step], list[Step]]:
    """The kills and the rest; the same for the same arguments."""
    rng = random.Random(f"{seed}/chaos")
    killing = _drawn(rng, {f"kill {name}": parts for name, parts in KILLS.items()}, kills)
    others = _drawn(rng, OTHERS, max(len(OTHERS), kills // 4))
    return _spread(rng, killing, seconds), _spread(rng, others, seconds)


def _spread(rng: random.Random, actions: list[str], seconds: float) -> list[Step]:
    rng.shuffle(actions)
    gap = seconds / len(actions)
    return [Step(gap * (i + rng.random()), action) for i, action in enumerate(actions)]


def _drawn(rng: random.Random, parts: dict[str, int], count: int) -> list[str]:
    """Every name at least once, the rest by their parts."""
    names = list(parts)
    rest = rng.choices(names, list(parts.values()), k=max(0, count - len(names)))
    return (names + rest)[: max(count, len(names))]


class Chaos(threading.Thread):
    """Works through one schedule; late where a step takes longer than its gap."""

    def __init__(self, stack: Stack, recorder: Recorder, steps: list[Step], seed: str) -> None:
        super().__init__(name="chaos", daemon=True)
        self._stack, self._recorder, self._steps = stack, recorder, steps
        self._rng = random.Random(seed)
        self.errors: list[str] = []

    def run(self) -> None:
        began = time.monotonic()
        for step in self._steps:
            while (left := began + step.at - time.monotonic()) > 0:
                time.sleep(min(left, 0.2))
            try:
                self._do(step.action)
            except Exception as error:
                self.errors.append(f"{step.action}: {error!r}")

    def _do(self, action: str) -> None:
        verb, _, target = action.partition(" ")
        deeds: dict[str, Callable[[str], None]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "stop": self._terminate,
            "network": lambda to: self._network(to.removeprefix("to ")),
            "flush": lambda _: self._flush(),
            "duplicate": lambda _: self._duplicate(),
            "post": lambda _: self._post_a_killer(),
        }
        deeds[verb](target)

    def _process(self, kind: str) -> Process:
        """One of the processes, as soon as it runs."""
        process = self._rng.choice(self._stack.webs if kind == "web" else self._stack.workers)
        deadline = time.monotonic() + 5
        while not process.children() and time.monotonic() < deadline:
            time.sleep(0.05)
        return process

    def _server_pid(self, name: str) -> int:
        """Of the server, as soon as it runs."""
        server = self._stack.redis if name == "redis" else self._stack.mongo
        deadline = time.monotonic() + 15
        while not server.running and time.monotonic() < deadline:
            time.sleep(0.05)
        return server.pid

    def _kill(self, target: str) -> None:
        if target in ("redis", "mongod"):
            self._kill_server(target)
            return
        process = self._process(target)
        inner = process.children()
        if inner and self._rng.random() < 0.6:
            pid = self._rng.choice(inner)
            with self._recorder.fault("kill", target, pid):
                send(pid, signal.SIGKILL)
        else:
            with self._recorder.fault("kill", target, *process.family()):
                self._stack.supervisor.kill(process, pause=self._rng.uniform(0, 0.5))

    def _kill_server(self, name: str) -> None:
        server = self._stack.redis if name == "redis" else self._stack.mongo
        empty = name == "redis" and self._rng.random() < 0.3
        with self._recorder.fault("kill", name, server.pid):
            server.kill()
            time.sleep(self._rng.uniform(0, 1.0))
            if empty:
                for file in server.data_dir.rglob("appendonly*"):
                    if file.is_file():
                        file.unlink()
            server.start()

    def _freeze(self, target: str) -> None:
        seconds = self._rng.choice([0.5, 2.0, 6.0, 11.0])
        if target in ("redis", "mongod"):
            pid = self._server_pid(target)
            with self._recorder.fault("freeze", target, pid):
                send(pid, signal.SIGSTOP)
                time.sleep(min(seconds, 7.0))
                send(pid, signal.SIGCONT)
            return
        pids = self._process(target).family()
        with self._recorder.fault("freeze", target, *pids):
            for pid in pids:
                send(pid, signal.SIGSTOP)
            time.sleep(seconds)
            for pid in pids:
                send(pid, signal.SIGCONT)

    def _terminate(self, target: str) -> None:
        process = self._process(target)
        with self._recorder.fault("term", target, *process.family()):
            process.terminate()
            time.sleep(1)

    def _network(self, to: str) -> None:
        proxy = self._stack.redis_proxy if to == "redis" else self._stack.mongo_proxy
        faults: list[Callable[[Proxy], None]] = [
            Proxy.hang,
            Proxy.reset,
            Proxy.refuse,
            Proxy.drop_replies,
            Proxy.break_connections,
            lambda p: p.delay(0.1),
            lambda p: p.lose_reply(self._rng.choice([b"insert\0", b"update\0", b"claim\0"])),
        ]
        with self._faulty(proxy, to):
            self._rng.choice(faults)(proxy)
            time.sleep(self._rng.choice([0.3, 1.5, 4.0]))

    @contextmanager
    def _faulty(self, proxy: Proxy, to: str) -> Iterator[None]:
        with self._recorder.fault("proxy", f"network to {to}"):
            try:
                yield
            finally:
                proxy.flow()

    def _flush(self) -> None:
        with self._recorder.fault("flush", "redis"):
            self._stack.redis_client.flushall()

    def _post_a_killer(self) -> None:
        """An event that kills its process, among those that don't."""
        client = Client(self._stack.api, self._recorder)
        with self._recorder.fault("killer job", "worker"):
            client.post("journal.async", {"die": True})

    def _duplicate(self) -> None:
        """Messages for jobs that have one already, and for finished ones."""
        jobs = self._stack.database["jobs"].find({}, {"type": 1, "queue": 1}, limit=200)
        with self._recorder.fault("duplicate", "redis"):
            hints = [
                Hint(job["_id"], job["type"], job["queue"], "normal")
                for job in jobs.sort("_id", -1)
            ]
            put_hints(self._stack.redis_client, hints)
