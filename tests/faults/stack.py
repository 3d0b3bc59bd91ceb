"""A running system for tests: real servers, and processes from the Procfile, all ours to hurt.

with Stack(folder, webs=1, workers=2) as stack:
    event = stack.api.post("journal.sync", {"duration_ms": 500})
    stack.kill_worker_of(event)
    stack.api.wait_final(event)
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import redis
from pymongo import MongoClient
from pymongo.database import Database

from infra.servers import MongoServer, RedisServer, free_port
from tests.faults.api import Api
from tests.faults.journal import Journal
from tests.faults.processes import ROOT, Process, Supervisor, send
from tests.faults.proxy import Proxy
from tests.faults.replica_set import ReplicaSet
from tests.faults.waiting import eventually

Document = dict[str, Any]
EVENT_TYPES = "tests.faults.journal_types"
QUICK = {
    "HEARTBEAT_SECONDS": "0.5",
    "LEASE_SECONDS": "2",
    "SWEEP_SECONDS": "0.25",
    "SHUTDOWN_GRACE_SECONDS": "1",
    "STUCK_GRACE_SECONDS": "0.5",
    "MONGODB_TIMEOUT_MS": "2000",
}
"""Short times, for what doesn't depend on them."""


class Stack:
    """Redis, MongoDB, web and worker processes; the latter reach the servers through proxies."""

    def __init__(
        self,
        folder: Path,
        *,
        webs: int = 1,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        mongo: MongoServer | ReplicaSet | None = None,
    ) -> None:
        self.folder = folder
        self.env: dict[str, str] = dict(env or {})
        self._counts = {"web": webs, "worker": workers}
        self._exit = ExitStack()
        self.redis = RedisServer(folder / "redis")
        self.mongo = mongo or MongoServer(folder / "mongo")
        self.journal = Journal(folder / "journal.jsonl")
        self.webs: list[Process] = []
        self.workers: list[Process] = []
        self._apis: dict[int, Api] = {}
        self._logs = 0

    def __enter__(self) -> Self:
        with ExitStack() as building:
            building.enter_context(self.redis)
            building.enter_context(self.mongo)
            self.redis_proxy = building.enter_context(Proxy(self.redis.port))
            self.mongo_proxy = building.enter_context(Proxy(self.mongo.port))
            self.supervisor = Supervisor()
            building.callback(self.supervisor.stop)
            self.client: MongoClient[Document] = MongoClient(
                self.mongo.url, timeoutMS=5_000, tz_aware=True, w="majority"
            )
            building.callback(self.client.close)
            self.redis_client = redis.Redis(port=self.redis.port, socket_timeout=5)
            building.callback(self.redis_client.close)
            for _ in range(self._counts["web"]):
                self.add_web()
            for _ in range(self._counts["worker"]):
                self.add_worker()
            building.callback(lambda: [api.close() for api in self._apis.values()])
            self.wait_ready()
            self._exit = building.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.undo_faults()
        self._exit.close()

    # processes

    def add_web(self, root: Path = ROOT, **env: str) -> Process:
        process = self._new("web", {"PORT": str(free_port()), **env}, root)
        self.webs.append(process)
        return process

    def add_worker(self, root: Path = ROOT, **env: str) -> Process:
        process = self._new("worker", env, root)
        self.workers.append(process)
        return process

    def remove(self, process: Process, timeout_seconds: float = 15) -> int | None:
        """Stops it for good; its exit code, None where it had to be killed."""
        for group in (self.webs, self.workers):
            if process in group:
                group.remove(process)
        return self.supervisor.remove(process, timeout_seconds)

    @contextmanager
    def web(self, **env: str) -> Iterator[Process]:
        """One more web process, ready, for the length of a test."""
        process = self.add_web(**env)
        try:
            eventually(self.api_of(process).is_ready, "the web is ready", within=20)
            yield process
        finally:
            self._kill_web(process)

    def _kill_web(self, web: Process) -> None:
        """At once: a test that looks at how it ends has ended it itself."""
        if web in self.webs:
            self.webs.remove(web)
            self.supervisor.forget(web)

    @contextmanager
    def only_workers(self, count: int = 1, **env: str) -> Iterator[list[Process]]:
        """Other workers instead of the usual ones, for the length of a test."""
        usual = len(self.workers)
        self._end_workers()
        mine = [self.add_worker(**env) for _ in range(count)]
        try:
            if "CRASH_POINT" not in env:
                self.wait_workers(count)
            yield mine
        finally:
            self._end_workers()
            for _ in range(usual):
                self.add_worker()

    @contextmanager
    def more_workers(self, count: int, **env: str) -> Iterator[list[Process]]:
        """Further workers beside the usual ones, for the length of a test."""
        mine = [self.add_worker(**env) for _ in range(count)]
        try:
            self.wait_workers(len(self.workers))
            yield mine
        finally:
            for process in mine:
                self.remove(process)

    def _end_workers(self) -> None:
        """At once, and without a trace of them: nothing has to wait for the end of a lease."""
        for process in list(self.workers):
            self.workers.remove(process)
            self.supervisor.forget(process)
        self.database["workers"].delete_many({})
        self.database["leases"].delete_many({})

    def _new(self, kind: str, env: Mapping[str, str], root: Path) -> Process:
        self._logs += 1
        log = self.folder / f"{kind}-{self._logs}.log"
        log.touch()
        return self.supervisor.add(Process(kind, {**self.settings(), **env}, log, root))

    def settings(self) -> dict[str, str]:
        """What every process is given; both servers through their proxies."""
        return {
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_proxy.port}/0",
            "MONGODB_URI": self.mongo_uri,
            "EVENT_TYPE_MODULES": EVENT_TYPES,
            "JOURNAL_FILE": str(self.journal.path),
            "SIMULATE_FAULTS": "1",
            "WEB_CONCURRENCY": "1",
            "LOG_FORMAT": "json",
            **self.env,
        }

    @property
    def mongo_uri(self) -> str:
        """Through the proxy. A direct connection: else the driver would go where the replica set's
        configuration sends it, as it should where there are several members."""
        if isinstance(self.mongo, ReplicaSet):
            return self.mongo.url
        return f"mongodb://127.0.0.1:{self.mongo_proxy.port}/pulsequeue?directConnection=true"

    # looks

    @property
    def api(self) -> Api:
        return self.api_of(self.webs[0])

    def api_of(self, web: Process) -> Api:
        port = int(web.env["PORT"])
        if port not in self._apis:
            self._apis[port] = Api(port)
        return self._apis[port]

    @property
    def database(self) -> Database[Document]:
        return self.client["pulsequeue"]

    def document(self, event: str) -> Document:
        return self.database["jobs"].find_one({"_id": event}) or {}

    def counter(self, document: str, name: str) -> float:
        found = self.database["counters"].find_one({"_id": document}) or {}
        return float(found.get(name, 0))

    def alive(self) -> list[Document]:
        """The documents of workers that run here and now."""
        pids = {pid for worker in self.workers for pid in worker.children()}
        return [w for w in self.database["workers"].find() if w["pid"] in pids]

    def wait_workers(self, count: int, within: float = 20) -> None:
        eventually(lambda: len(self.alive()) == count, f"{count} workers are alive", within=within)

    def wait_ready(self, within: float = 30) -> None:
        """Every process that should be there is, and can work."""
        for web in self.webs:
            eventually(self.api_of(web).is_ready, "the web is ready", within=within)
        self.wait_workers(len(self.workers), within)

    def wait_idle(self, within: float = 20) -> None:
        """No job is open that could be run now."""
        open_jobs = {"status": {"$in": ["pending", "processing"]}}
        eventually(
            lambda: self.database["jobs"].count_documents(open_jobs) == 0,
            "no job is open",
            within=within,
        )

    def holder(self, event: str) -> int | None:
        """The pid of the worker process that has the event's job now."""
        document = self.document(event)
        if document.get("status") != "processing":
            return None
        worker = self.database["workers"].find_one({"_id": document["worker"]})
        return None if worker is None else int(worker["pid"])

    def wait_held(self, event: str, within: float = 10) -> int:
        """Waits until a handler runs the event; the pid of its process."""

        def runs() -> int | None:
            pid = self.holder(event)
            return pid if any(e.pid == pid for e in self.journal.starts(event)) else None

        return eventually(runs, f"event {event} runs", within=within) or 0

    def worker_with(self, pid: int) -> Process:
        return next(worker for worker in self.workers if pid in worker.family())

    def forget(self) -> None:
        """Removes every job and message, so that the next test starts from nothing."""
        self.database["jobs"].delete_many({})
        self.database["counters"].delete_many({})
        self.redis_client.flushall()

    # faults

    def kill_holder(self, event: str) -> int:
        """kill -9 of the process that runs the event's handler, and of no other; its pid."""
        pid = self.wait_held(event)
        send(pid, signal.SIGKILL)
        return pid

    def kill_worker(self, worker: Process) -> None:
        """kill -9 of a worker with its master; the supervisor starts it again."""
        self.supervisor.kill(worker)

    def undo_faults(self) -> None:
        """Everything flows, runs and listens again."""
        for process in [*self.webs, *self.workers]:
            for pid in process.family():
                send(pid, signal.SIGCONT)
        for server in (self.redis, self.mongo):
            if server.running:
                server.thaw()
            else:
                server.start()
        self.redis_proxy.flow()
        self.mongo_proxy.flow()
