"""What Redis and MongoDB have in common here: a program, a folder, a port, being ready."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from infra.servers.ports import kept_port
from infra.servers.process import ServerError, ServerProcess
from infra.servers.programs import in_package, on_path


def last_lines(path: Path, count: int = 15, wanted: Callable[[str], bool] = bool) -> str:
    """The last `count` wanted lines of a log, indented; empty where there is none."""
    text = path.read_text(errors="replace") if path.exists() else ""
    lines = [line for line in text.splitlines() if wanted(line)]
    return "\n".join(f"    {line}" for line in lines[-count:])


class Server(ServerProcess):
    """One real server: `with RedisServer(folder) as server:`.

    `data_dir` holds its data, its port and its log; `extra` are further arguments for its program,
    a value of several words as several: before 7.0, Redis takes `--save "60 1"` for one word.
    """

    path_first: ClassVar[bool] = True
    """Whether a program on PATH goes before the packaged one; tests turn this off."""
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
        self.port = port or kept_port(self.data_dir / "port")
        (self.data_dir / "port").write_text(str(self.port))
        self._extra = list(extra)

    @property
    @abstractmethod
    def url(self) -> str:
        """What a client connects to."""

    @abstractmethod
    def _arguments(self) -> list[str]: ...

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it takes writes; does what is needed once to get there."""

    def command(self) -> list[str]:
        """The whole command line. Raises ServerError where the program can't be had."""
        program = self.find_program()
        if program is None:
            raise ServerError(
                f"No {self.program} on PATH, and no package for this machine has one.\n"
                f"{self._ways_out()}"
            )
        needs: list[str] = []
        if program == in_package(*self.packaged):
            program.chmod(0o755)  # the wheel does not carry the run bit
            needs = self._packaged_needs()
        return [*needs, str(program), *self._arguments(), *self._extra]

    @classmethod
    def find_program(cls) -> Path | None:
        """The program that is started here, in the order of `path_first`."""
        found = on_path(cls.program), in_package(*cls.packaged)
        return next(filter(None, found if cls.path_first else reversed(found)), None)

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
