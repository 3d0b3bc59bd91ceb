"""Web and worker processes, started as the Procfile says, hurt by their own pids, restarted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
_LOOK_SECONDS = 0.05


def procfile_command(name: str, root: Path = ROOT) -> str:
    """The command of one process type."""
    for line in (root / "Procfile").read_text().splitlines():
        kind, _, command = line.partition(":")
        if kind == name:
            return command.strip()
    raise KeyError(name)


class Process:
    """One process of the Procfile with its children, in a session of their own.

    Signals go to the whole group, as when a container dies; `worker_pid`-like inner processes are
    hurt by `send(pid, ...)`. A `CRASH_POINT` in `env` is for the first start alone: what dies there
    is well when it is back. `root`: the sources; those of another version have their own `.venv`.
    """

    def __init__(self, kind: str, env: Mapping[str, str], log: Path, root: Path = ROOT) -> None:
        self.kind, self.log, self.root = kind, log, root
        self.env = dict(env)
        self._popen: subprocess.Popen[bytes] | None = None
        self.wanted = False
        self.starts = 0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                ["bash", "-c", f"exec {procfile_command(self.kind, self.root)}"],
                cwd=self.root,
                env=_environment(self.env, self.root),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.env.pop("CRASH_POINT", None)
        self.wanted = True
        self.starts += 1

    @property
    def pid(self) -> int:
        """Of the outermost process, which leads the group."""
        assert self._popen is not None, f"{self.kind} was never started"
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._popen is None else self._popen.poll()

    def children(self) -> list[int]:
        """Pids of the inner processes: Dramatiq's workers, gunicorn's."""
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        return []

    def family(self) -> set[int]:
        return {self.pid, *self.children()}

    def signal(self, number: signal.Signals) -> None:
        """To the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, all at once, and it is gone when this returns."""
        family = self.family()
        self.signal(signal.SIGKILL)
        for pid in family:
            send(pid, signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(10)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM to the outermost process alone, as a platform does."""
        send(self.pid, signal.SIGTERM)

    def stop(self, timeout_seconds: float = 15) -> int | None:
        """Ends it for good, in order if it lets itself; its exit code."""
        self.wanted = False
        if self._popen is None:
            return None
        self.thaw()
        self.terminate()
        return self.wait(timeout_seconds)

    def wait(self, timeout_seconds: float) -> int | None:
        """Its exit code; a process that takes longer is killed, and None returned."""
        assert self._popen is not None
        try:
            return self._popen.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def says(self, text: str, since: int = 0) -> bool:
        """Whether its log has the text, from that position on."""
        return text.encode() in self.log.read_bytes()[since:]


def send(pid: int, number: signal.Signals) -> bool:
    """Sends a signal to that one process; whether it was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class Supervisor:
    """Restarts what died, as a platform does; nothing that is not `wanted`."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def add(self, process: Process) -> Process:
        with self._lock:
            self.processes.append(process)
            process.start()
        return process

    def remove(self, process: Process, timeout_seconds: float = 15) -> int | None:
        """Stops it and forgets it; its exit code, None where it had to be killed."""
        with self._lock:
            process.wanted = False
            if process in self.processes:
                self.processes.remove(process)
        return process.stop(timeout_seconds)

    def forget(self, process: Process) -> None:
        """kill -9 for good."""
        with self._lock:
            process.wanted = False
            if process in self.processes:
                self.processes.remove(process)
            process.kill()

    def kill(self, process: Process, *, pause: float = 0.0) -> None:
        """kill -9 of the group; it is back after `pause` seconds."""
        with self._lock:
            process.wanted = False
            process.kill()
        if pause:
            time.sleep(pause)
        process.wanted = True

    def stop(self) -> None:
        """kill -9 of all, for good: in order it would take seconds, and nobody looks any more."""
        self._ended.set()
        self._thread.join(5)
        for process in list(self.processes):
            self.forget(process)

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            with self._lock:
                for process in self.processes:
                    if process.wanted and not process.running:
                        process.kill()  # what its end may have left of the group
                        process.start()


def _environment(env: Mapping[str, str], root: Path) -> dict[str, str]:
    """The given settings on top of what a process needs to run at all."""
    programs = Path(sys.executable).parent if root == ROOT else root / ".venv" / "bin"
    kept = {k: v for k, v in os.environ.items() if k in {"HOME", "LANG", "TMPDIR", "TZ"}}
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **env}
