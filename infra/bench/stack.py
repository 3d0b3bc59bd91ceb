"""One contestant on fresh, real servers: its web and worker, started when a phase wants them."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis
from pymongo import MongoClient

from infra.bench import load
from infra.bench.documents import Document, Jobs
from infra.bench.processes import BenchError, Process, Usage, usage_of
from infra.servers import MongoServer, RedisServer, free_port
from infra.supervision import programs_of

ROOT = Path(__file__).resolve().parents[2]
_BATCH = 1_000
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
        self._processes: dict[str, Process] = {}
        self.port = free_port()

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
            self.mongo: MongoClient[Document] = MongoClient(self.mongo_server.url)
            building.callback(self.mongo.close)
            self.database = self.mongo["pulsequeue"]
            self.jobs = Jobs(self.database["jobs"])
            building.callback(self._kill_processes)  # nothing of theirs is wanted any more
            self._exit = building.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    # processes

    def start_web(self) -> None:
        """Returns when it is healthy."""
        process = self._start("web", {})
        process.wait_until(self._is_healthy, "the web's health", _READY_SECONDS)

    def start_worker(self, processes: int = 1) -> None:
        """Returns at once; it is ready some time later."""
        self._start("worker", {"WORKER_PROCESSES": str(processes)})

    def wait_workers(self, count: int = 1) -> None:
        """Until so many worker processes have told of themselves."""
        workers = self.database["workers"]
        self.worker.wait_until(
            lambda: workers.count_documents({}) >= count, "the worker's heartbeat", _READY_SECONDS
        )

    def stop_worker(self) -> None:
        """In order."""
        self._processes.pop("worker").stop()

    def warm_up(self) -> None:
        """What runs has worked for a moment, and nothing is left for a worker to do."""
        load.Load(self.port, 8, self._warm_up_seconds).finish()
        if "worker" in self._processes and not self.jobs.wait_done(_READY_SECONDS):
            raise BenchError(f"{self.contestant.name}: events of the warm-up are not finished")

    @property
    def web(self) -> Process:
        return self._processes["web"]

    @property
    def worker(self) -> Process:
        return self._processes["worker"]

    def servers_usage(self) -> Usage:
        return usage_of(self.redis_server.pid, self.mongo_server.pid)

    def _start(self, role: str, env: Mapping[str, str]) -> Process:
        own = {
            "PATH": f"{self.contestant.path}:{os.environ['PATH']}",
            "PORT": str(self.port),
            "REDIS_URL": self.redis_server.url,
            "MONGODB_URI": self.mongo_server.url,
        }
        self._processes[role] = Process(
            self.contestant.commands[role],
            cwd=self.contestant.folder,
            env={**os.environ, **self._env, **own, **env},
            log=self.folder / f"{role}.log",
        )
        return self._processes[role]

    def _kill_processes(self) -> None:
        for process in self._processes.values():
            process.kill()

    # over HTTP

    def _is_healthy(self) -> bool:
        try:
            return self.request("GET", "/health")[0] == 200
        except OSError:
            return False

    def request(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        with self.connection() as connection:
            return ask(connection, method, path, body)

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()

    def post_many(self, count: int, event: str = load.EVENT) -> None:
        """The same event so often, by batches."""
        self.post_all([event] * count)

    def post_all(self, events: list[str]) -> None:
        """These events (as JSON), by batches."""
        with self.connection() as connection:
            for begin in range(0, len(events), _BATCH):
                body = batch_of(events[begin : begin + _BATCH])
                status, answer = ask(connection, "POST", "/events/batch", body)
                if status != 202:
                    raise BenchError(f"POST /events/batch: {status} {answer[:300]!r}")

    def post_for(self, seconds: float, most: int, event: str = load.EVENT) -> None:
        """Events one by one, as fast as they are taken, up to so many or for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.jobs.count() < most:
            load.Load(self.port, 64, 1, body=event).finish()

    # in Redis

    def redis_commands(self) -> int:
        """How many it has carried out since its start."""
        return int(self._redis_info("stats")["total_commands_processed"])

    def redis_memory_mb(self) -> float:
        return float(self._redis_info("memory")["used_memory"]) / 1e6

    def redis_version(self) -> str:
        return str(self._redis_info("server")["redis_version"])

    def _redis_info(self, section: str) -> dict[str, Any]:
        info: Any = self.redis.info(section)
        return dict(info)

    def clear(self) -> None:
        """Nothing is stored, and nothing waits.

        In this order: a request still under way must not lose its message and keep its document.
        """
        self.redis.flushdb()
        self.jobs.clear()


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


def batch_of(events: list[str]) -> str:
    """The body of a batch of these events (as JSON)."""
    return f'{{"events":[{",".join(events)}]}}'


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None
) -> tuple[int, bytes]:
    """One request on a kept-alive connection: status and body."""
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request(method, path, body and body.encode(), headers)
    answer = connection.getresponse()
    return answer.status, answer.read()
