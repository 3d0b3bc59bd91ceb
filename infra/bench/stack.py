"""One contestant on fresh, real servers: its web and worker, started when a phase wants them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import redis
from pymongo import MongoClient

from infra.bench import load
from infra.bench.documents import Document, Jobs
from infra.bench.over_http import OverHttp
from infra.bench.processes import BenchError, Process, Usage, usage_of
from infra.bench.redis_figures import RedisFigures
from infra.servers import MongoServer, RedisServer, free_port
from infra.supervision import programs_of

ROOT = Path(__file__).resolve().parents[2]
_READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who is measured: the commands of its processes, as bash runs them, by role."""

    name: str
    folder: Path
    commands: Mapping[str, list[str]]
    path: str
    """Folder to look for programs in first."""
    is_peer: bool = False


def pulsequeue() -> Contestant:
    """This project, by its Procfile."""
    commands = {p.name: p.command for p in programs_of(ROOT / "Procfile", ROOT)}
    return Contestant("PulseQueue", ROOT, commands, str(Path(sys.executable).parent))


class Roles:
    """The contestant's processes that run, by role; what they say is in `folder`."""

    def __init__(self, contestant: Contestant, env: Mapping[str, str], folder: Path) -> None:
        self._contestant, self._env, self._folder = contestant, env, folder
        self._processes: dict[str, Process] = {}

    def __getitem__(self, role: str) -> Process:
        return self._processes[role]

    def runs(self, role: str) -> bool:
        return role in self._processes

    def start(self, role: str, **env: str) -> Process:
        self._processes[role] = Process(
            self._contestant.commands[role],
            cwd=self._contestant.folder,
            env={**self._env, **env},
            log=self._folder / f"{role}.log",
        )
        return self._processes[role]

    def stop(self, role: str) -> None:
        """In order."""
        self._processes.pop(role).stop()

    def kill(self) -> None:
        """All of them."""
        for process in self._processes.values():
            process.kill()


class Stack:
    """`with Stack(contestant) as stack:` has Redis and MongoDB; all its processes end with it.

    `env` is for the web and the worker, beside the environment of the benchmark itself.
    """

    def __init__(
        self,
        contestant: Contestant,
        env: Mapping[str, str] | None = None,
        *,
        warm_up_seconds: int = 2,
    ) -> None:
        self.contestant, self._warm_up_seconds = contestant, warm_up_seconds
        self._env = dict(env or {})
        self._exit = ExitStack()
        self.port = free_port()
        self.http = OverHttp(self.port)

    def __enter__(self) -> Self:
        local = ROOT / ".local" / "bench"
        local.mkdir(parents=True, exist_ok=True)
        with ExitStack() as building:
            self.folder = Path(tempfile.mkdtemp(dir=local))
            building.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.redis_server = RedisServer(self.folder / "redis").start()
            building.callback(self.redis_server.kill)
            self.mongo_server = MongoServer(self.folder / "mongodb").start()
            building.callback(self.mongo_server.kill)
            self.redis = redis.Redis(port=self.redis_server.port)
            building.callback(self.redis.close)
            self.redis_figures = RedisFigures(self.redis)
            self.mongo: MongoClient[Document] = MongoClient(self.mongo_server.url)
            building.callback(self.mongo.close)
            self.database = self.mongo["pulsequeue"]
            self.jobs = Jobs(self.database["jobs"])
            self._roles = Roles(self.contestant, _environment(self, self._env), self.folder)
            building.callback(self._roles.kill)  # nothing of theirs is wanted any more
            self._exit = building.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    # processes

    def start_web(self) -> None:
        """Returns when it is healthy."""
        process = self._roles.start("web")
        process.wait_until(self.http.is_healthy, "the web's health", _READY_SECONDS)

    def start_worker(self, processes: int = 1) -> None:
        """Returns at once; it is ready some time later."""
        self._roles.start("worker", WORKER_PROCESSES=str(processes))

    def wait_workers(self, count: int = 1) -> None:
        """Until so many worker processes have told of themselves."""
        workers = self.database["workers"]
        self.worker.wait_until(
            lambda: workers.count_documents({}) >= count, "the worker's heartbeat", _READY_SECONDS
        )

    def stop_worker(self) -> None:
        """In order."""
        self._roles.stop("worker")

    def warm_up(self) -> None:
        """What runs has worked for a moment, and nothing is left for a worker to do."""
        load.Load(self.port, 8, self._warm_up_seconds).finish()
        if self._roles.runs("worker") and not self.jobs.wait_done(_READY_SECONDS):
            raise BenchError(f"{self.contestant.name}: events of the warm-up are not finished")

    @property
    def web(self) -> Process:
        return self._roles["web"]

    @property
    def worker(self) -> Process:
        return self._roles["worker"]

    def servers_usage(self) -> Usage:
        return usage_of(self.redis_server.pid, self.mongo_server.pid)

    def clear(self) -> None:
        """Nothing is stored, and nothing waits.

        In this order: a request still under way must not lose its message and keep its document.
        """
        self.redis.flushdb()
        self.jobs.clear()


def _environment(stack: Stack, env: Mapping[str, str]) -> dict[str, str]:
    """Of the stack's processes: that of the benchmark, `env`, and where the servers are."""
    own = {
        "PATH": f"{stack.contestant.path}:{os.environ['PATH']}",
        "PORT": str(stack.port),
        "REDIS_URL": stack.redis_server.url,
        "MONGODB_URI": stack.mongo_server.url,
    }
    return {**os.environ, **env, **own}


@dataclass(frozen=True, slots=True)
class Bench:
    """What a phase is given: whom to measure, and how long."""

    contestant: Contestant
    seconds: int = 4
    quick: bool = False
    growth_jobs: int = 1_000_000

    def stack(self, **env: str) -> Stack:
        """Fresh servers; `env`: settings for web and worker."""
        return Stack(self.contestant, env, warm_up_seconds=1 if self.quick else 2)
