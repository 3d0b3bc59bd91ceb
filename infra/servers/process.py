"""A server as a child process of this one."""

from __future__ import annotations

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self


class ServerError(RuntimeError):
    """A server can't be had, or did not come up; the message says what to do about it."""


class ServerProcess(ABC):
    """`with` starts it, and kills it in the end: who leaves the block wants nothing of its data
    any more."""

    name: ClassVar[str]
    log: Path

    _process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The whole command line."""

    @abstractmethod
    def wait_ready(self, failed: Callable[[], bool], timeout_seconds: float = 60) -> None:
        """Waits until it takes writes. Raises ServerError once `failed()`, or too late."""

    @property
    def pid(self) -> int:
        """The process id; only between `start` and `stop`."""
        if self._process is None:
            raise ServerError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

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
