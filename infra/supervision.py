"""The processes of `infra/up` under supervisord, which restarts what dies and stops in order."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from infra.leftovers import SESSION_FILE, STOP_SECONDS

SOCKET = "supervisor.sock"
SERVERS, PROCFILE = GROUPS = ("servers", "procfile")  # the last stops first, and as a whole
STARTS_BEFORE_GIVING_UP = 3


@dataclass(frozen=True)
class Program:
    """One supervised process, in one of GROUPS."""

    group: str
    name: str
    command: list[str]
    log: Path


def programs_of(procfile: Path, log_dir: Path) -> list[Program]:
    """The Procfile's processes, each run by bash as a Heroku-style platform does."""
    lines = [line.partition(":") for line in procfile.read_text().splitlines()]
    return [
        Program(PROCFILE, name, ["bash", "-c", f"exec {command.strip()}"], log_dir / f"{name}.log")
        for name, colon, command in lines
        if colon and not name.startswith("#")
    ]


class Supervisor:
    """supervisord with these programs, started one by one through its own socket."""

    def __init__(self, local: Path, programs: list[Program], env: Mapping[str, str]) -> None:
        self.programs = {program.name: program for program in programs}
        self._local = local
        self._env = dict(env)
        # A socket's path may have about a hundred bytes; some systems stop at 103.
        fits = len(os.fsencode(local / SOCKET)) < 100
        self._socket_dir = local if fits else Path(tempfile.mkdtemp(prefix="pulsequeue-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._pids: defaultdict[str, set[int]] = defaultdict(set)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts supervisord and none of its programs yet."""
        config = self._local / "supervisord.conf"
        config.write_text(_config(self._local, self._socket, [*self.programs.values()]))
        self._socket.unlink(missing_ok=True)  # it outlives a supervisord that was killed
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config)],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is ours to handle: it stops things in order
        )
        (self._local / SESSION_FILE).write_text(str(self._process.pid))
        while not self._socket.exists():
            if not self.running:
                raise RuntimeError(
                    f"supervisord did not start: see {self._local / 'supervisord.log'}"
                )
            time.sleep(0.02)

    def start_program(self, name: str) -> None:
        """Starts it, unless it runs; whether it stays up is for `pids` and `failed` to tell."""
        try:
            self._call("startProcess", f"{self.programs[name].group}:{name}", False)
        except Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise

    def pids(self) -> dict[str, int]:
        """Each program's process id now, 0 while it has none."""
        found = {name: info["pid"] for name, info in self._info().items()}
        for name, pid in found.items():
            self._pids[name] |= {pid} - {0}
        return found

    def given_up(self, name: str) -> bool:
        """Whether it ended so soon, so often, that it is not started again."""
        return bool(self._info()[name]["statename"] == "FATAL")

    def failed(self, name: str) -> bool:
        """Whether it can't be started: given up, or started again and again."""
        self.pids()
        return self.given_up(name) or len(self._pids[name]) > STARTS_BEFORE_GIVING_UP

    def begin_stop(self) -> None:
        """Asks for an ordered stop: the Procfile's processes, then the servers."""
        if self._process is not None and self.running:
            self._process.terminate()

    def clean_up(self) -> None:
        if self._socket_dir != self._local:
            shutil.rmtree(self._socket_dir, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return self._socket_dir / SOCKET

    def _info(self) -> dict[str, dict[str, Any]]:
        return {info["name"]: info for info in self._call("getAllProcessInfo")}

    def _call(self, method: str, *args: object) -> Any:
        transport = SupervisorTransport(serverurl=f"unix://{self._socket}")
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*args)


def _config(local: Path, socket: Path, programs: Sequence[Program]) -> str:
    """supervisord's configuration file."""
    sections: dict[str, dict[str, object]] = {
        "supervisord": {
            "logfile": local / "supervisord.log",
            "pidfile": local / "supervisord.pid",
            "directory": Path.cwd(),
            "silent": "true",
            **({"user": "root"} if os.geteuid() == 0 else {}),  # or it warns of running as root
        },
        "unix_http_server": {"file": socket},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        **{f"program:{p.name}": _program_options(p) for p in programs},
        **{f"group:{group}": _group_options(group, programs) for group in GROUPS},
    }
    return "\n".join(_section(title, options) for title, options in sections.items())


def _group_options(group: str, programs: Sequence[Program]) -> dict[str, object]:
    names = [program.name for program in programs if program.group == group]
    return {"programs": ",".join(names), "priority": GROUPS.index(group)}


def _program_options(program: Program) -> dict[str, object]:
    return {
        "command": shlex.join(program.command),
        "autostart": "false",
        "autorestart": "true",
        "startretries": STARTS_BEFORE_GIVING_UP - 1,
        "stopwaitsecs": STOP_SECONDS,
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": program.log,
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": 1,
    }


def _section(title: str, options: Mapping[str, object]) -> str:
    # supervisord expands %(name)s, in paths and commands too.
    lines = [f"{key} = {str(value).replace('%', '%%')}" for key, value in options.items()]
    return "\n".join([f"[{title}]", *lines, ""])
