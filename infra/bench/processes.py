"""A contestant's process with all that it starts, and what they use."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.servers import last_lines


class BenchError(Exception):
    """A phase can't be measured; the message says why, and ends with the last log lines."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have used: CPU since they began, and the memory that they hold now."""

    cpu_seconds: float = 0.0
    resident_mb: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu_seconds + other.cpu_seconds, self.resident_mb + other.resident_mb)


def usage_of(*pids: int) -> Usage:
    """Of these processes, their children not included."""
    total = Usage()
    for pid in pids:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info()
        except psutil.Error:  # it has just ended
            continue
        total += Usage(times.user + times.system, memory.rss / 1e6)
    return total


class Process:
    """`command` in a session of its own, its output in `log`."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path
    ) -> None:
        self.log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def pids(self) -> list[int]:
        """The process and its descendants."""
        try:
            children = psutil.Process(self._popen.pid).children(recursive=True)
        except psutil.Error:
            return []
        return [self._popen.pid, *(child.pid for child in children)]

    def usage(self) -> Usage:
        return usage_of(*self.pids())

    def freeze(self) -> None:
        """SIGSTOP to all of them."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def stop(self, timeout_seconds: float = 30) -> None:
        """In order; what is left then is killed."""
        self.thaw()
        self._popen.terminate()
        try:
            self._popen.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """At once, with all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def wait_until(self, what: Callable[[], bool], meaning: str, seconds: float = 60) -> None:
        """Raises `BenchError` where the process ends before that, or it takes too long."""
        if not until(lambda: what() or not self.running, seconds) or not self.running:
            raise BenchError(
                f"{meaning}: did not come in {seconds:.0f} s; the end of the log:\n"
                f"{last_lines(self.log)}"
            )

    def _send(self, number: signal.Signals) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def until(what: Callable[[], bool], seconds: float, every_seconds: float = 0.05) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(every_seconds)
    return True
